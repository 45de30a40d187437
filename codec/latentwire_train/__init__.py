# SPDX-License-Identifier: Apache-2.0
"""Images on disk -> a trained VAE: data, losses and the loop, one module each."""
