# SPDX-License-Identifier: Apache-2.0
"""The commands that look into a latent space, one module each."""
