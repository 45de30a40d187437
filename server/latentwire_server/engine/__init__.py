# SPDX-License-Identifier: Apache-2.0
"""Jobs -> results: admission, preparing, batching, the device, finishing, models."""
