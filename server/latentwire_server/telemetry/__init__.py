# SPDX-License-Identifier: Apache-2.0
"""Metrics, statistics and the log."""
