# SPDX-License-Identifier: Apache-2.0
"""The networks that run here, and how each class of VAE is called."""
