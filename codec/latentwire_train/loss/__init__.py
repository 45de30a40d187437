# SPDX-License-Identifier: Apache-2.0
"""Images, reconstructions and posteriors -> the terms of the loss."""
