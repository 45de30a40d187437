# SPDX-License-Identifier: Apache-2.0
"""Images and VAEs -> what each VAE loses, in how many bytes, and how fast: `python -m benchmarks.roundtrip`."""
