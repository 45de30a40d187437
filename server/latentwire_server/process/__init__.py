# SPDX-License-Identifier: Apache-2.0
"""Worker processes, ports, start and end."""
