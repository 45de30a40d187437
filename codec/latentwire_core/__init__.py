# SPDX-License-Identifier: Apache-2.0
"""What every side means by latents: arrays, kinds, noise, identity, scaling, formats, the `.lat` container."""
