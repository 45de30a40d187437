# SPDX-License-Identifier: Apache-2.0
"""Images and VAEs -> what comes back of them, and in how many bytes: `python -m benchmarks.roundtrip`."""
