# SPDX-License-Identifier: Apache-2.0
"""Networks and sizes -> how fast each engine runs them in this process: `python -m benchmarks.throughput`."""
