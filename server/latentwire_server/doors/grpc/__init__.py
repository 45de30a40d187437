# SPDX-License-Identifier: Apache-2.0
"""The native door: `latentwire.v1.LatentCodecService`."""
