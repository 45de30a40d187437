# SPDX-License-Identifier: Apache-2.0
"""A measurement of one image -> rows of a folder, one JSON file and one page: what the benchmarks share."""
