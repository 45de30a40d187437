# SPDX-License-Identifier: Apache-2.0
"""Latents of a folder -> how small they get and what that costs: `python -m benchmarks.latent_cache`."""
