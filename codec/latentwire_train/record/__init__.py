# SPDX-License-Identifier: Apache-2.0
"""A training run -> what it leaves behind: log, curves, pictures, model card, the model itself."""
