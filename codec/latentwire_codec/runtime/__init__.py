# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's network -> images to latents and back, on a device, in a precision, within a memory budget."""
