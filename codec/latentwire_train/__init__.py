# SPDX-License-Identifier: Apache-2.0
"""Images on disk -> a trained VAE. `loop.train` is the way in."""
