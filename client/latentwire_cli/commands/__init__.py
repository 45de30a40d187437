# SPDX-License-Identifier: Apache-2.0
"""The commands of every day, one module each."""
