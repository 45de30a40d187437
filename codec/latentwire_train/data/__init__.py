# SPDX-License-Identifier: Apache-2.0
"""Images on disk -> training samples."""
