# SPDX-License-Identifier: Apache-2.0
"""Image files <-> uint8 RGB pixels, and the sizes and colours between them."""
