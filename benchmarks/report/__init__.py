# SPDX-License-Identifier: Apache-2.0
"""What benchmarks share: arguments, rows that resume, scores, models, plots, and reports."""
