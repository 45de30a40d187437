# SPDX-License-Identifier: Apache-2.0
"""What an image says of its colours -> opaque sRGB, the same for whoever reads a file and whoever sends an image."""
