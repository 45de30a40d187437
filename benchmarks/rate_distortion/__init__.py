# SPDX-License-Identifier: Apache-2.0
"""Images and codecs -> quality against bytes: `python -m benchmarks.rate_distortion`."""
