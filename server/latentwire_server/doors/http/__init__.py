# SPDX-License-Identifier: Apache-2.0
"""The remote-VAE dialect of diffusers over HTTP, health and metrics."""
