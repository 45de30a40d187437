# SPDX-License-Identifier: Apache-2.0
"""Two images -> a number that says how alike they are."""
