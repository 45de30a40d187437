# SPDX-License-Identifier: Apache-2.0
"""Image files <-> uint8 RGB pixels, with conversions of size and colour."""
