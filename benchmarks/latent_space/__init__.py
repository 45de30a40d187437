# SPDX-License-Identifier: Apache-2.0
"""Trained models -> the figures and tables of docs/vae.md: `python -m benchmarks.latent_space`."""
