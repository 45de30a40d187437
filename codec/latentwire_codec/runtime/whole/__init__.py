# SPDX-License-Identifier: Apache-2.0
"""A VAE's network in bfloat16 on a CPU, and images that fit into memory -> the result, whole layers at a time.

known        which networks can be computed so
kl, latent   the networks
layers       convolutions as oneDNN computes them
kernels      what stands between the convolutions, in one pass each
"""
