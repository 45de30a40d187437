# SPDX-License-Identifier: Apache-2.0
"""A training run -> its folder: log, curves, pictures, model card, weights."""
