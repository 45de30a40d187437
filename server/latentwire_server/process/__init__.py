# SPDX-License-Identifier: Apache-2.0
"""Processes: workers, ports, start and end."""
