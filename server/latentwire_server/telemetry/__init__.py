# SPDX-License-Identifier: Apache-2.0
"""What a server measures of itself, and the ports that tell it."""
