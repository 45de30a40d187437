# SPDX-License-Identifier: Apache-2.0
"""A model -> speed, latency and memory of a server that holds it: `python -m benchmarks.serving`."""
