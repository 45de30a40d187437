# SPDX-License-Identifier: Apache-2.0
"""Where images come from: a location -> items by name, and their bytes."""
