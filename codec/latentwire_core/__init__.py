# SPDX-License-Identifier: Apache-2.0
"""Latents as client, server and codec share them: arrays, kinds, noise, identity, scaling, the `.lat` container."""
