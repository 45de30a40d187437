# SPDX-License-Identifier: Apache-2.0
"""A model -> how fast a server in a process of its own serves it, and how evenly: `python -m benchmarks.serving`."""
