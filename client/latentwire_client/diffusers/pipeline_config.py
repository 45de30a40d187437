# SPDX-License-Identifier: Apache-2.0
"""A server's description of a model -> the configuration that pipelines read: all keys of an AutoencoderKL, always."""

import inspect
from typing import Any

from diffusers import AutoencoderKL

from latentwire_client.info import ModelInfo
from latentwire_core.scaling import from_config, same_numbers, spread

SCALING_KEYS = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
# Pipelines read the number of blocks of a VAE without networks, and never a width.
ANY_WIDTH = 64


def to_pipeline_config(info: ModelInfo) -> dict[str, Any]:
    """Map a served model to its configuration.

    The keys of the model's own class are kept. Missing keys of AutoencoderKL are filled in: as many
    `block_out_channels` as give pipelines the true downsampling factor, the scaling by the server's numbers, other keys
    by the defaults of AutoencoderKL.
    """
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(AutoencoderKL.__init__).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    config = {**defaults, **info.config, **_scaling(info)}
    levels = info.downsample_factor.bit_length()
    if len(config["block_out_channels"]) != levels:
        config["block_out_channels"] = [ANY_WIDTH] * levels
    for key, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        config[key] = info.config.get(key, [kind] * levels)
    return config | {"latent_channels": info.latent_channels, "latent_space": info.latent_space}


def _scaling(info: ModelInfo) -> dict[str, Any]:
    """Return the model's own keys where they agree with the server, else the server's numbers in these keys."""
    own = from_config(info.config)
    if own is not None and same_numbers(own.scale, info.scale) and same_numbers(own.shift, info.shift):
        return {key: info.config.get(key) for key in SCALING_KEYS}
    if len(info.scale) == len(info.shift) == 1:
        return dict(zip(SCALING_KEYS, (info.scale[0], info.shift[0] or None, None, None), strict=True))
    scale, shift = (spread(numbers, info.latent_channels) for numbers in (info.scale, info.shift))
    return dict(zip(SCALING_KEYS, (1.0, None, shift, [1 / each for each in scale]), strict=True))
