# SPDX-License-Identifier: Apache-2.0
"""Other protocols onto the same batcher: requests in their dialects -> answers in their dialects."""
