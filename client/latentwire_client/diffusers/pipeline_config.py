# SPDX-License-Identifier: Apache-2.0
"""What a server says of a model -> the configuration that pipelines read: all keys of an AutoencoderKL, always."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import AutoencoderKL

from latentwire_client.info import ModelInfo

SCALING_KEYS = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
# Only the number of these is ever read of a VAE whose networks are elsewhere.
ANY_WIDTH = 64


def to_pipeline_config(info: ModelInfo) -> dict[str, Any]:
    """Map a served model to its configuration.

    The keys of its own class are kept. Those of AutoencoderKL that it lacks are filled in: the number of
    `block_out_channels` so that pipelines derive the true downsampling factor from it, the scaling from the server's
    numbers, the others from the class's defaults.
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


def scale_and_shift(config: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]] | None:
    """Map a diffusers configuration to scale and shift, each 1 or C numbers: scaled = (raw - shift) * scale.

    Returns:
        None where the configuration has no scaling factor.
    """
    factor, mean, std = (config.get(key) for key in ("scaling_factor", "latents_mean", "latents_std"))
    if factor is None:
        return None
    if mean is not None and std is not None:
        return [factor / each for each in std], mean
    return [factor], [config.get("shift_factor") or 0.0]


def same_numbers(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Whether two lists agree, one number standing for any count of it."""
    length = max(len(ours), len(theirs))
    if {len(ours), len(theirs)} - {1, length}:
        return False
    pairs = zip(_spread(ours, length), _spread(theirs, length), strict=True)
    return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) for a, b in pairs)


def _scaling(info: ModelInfo) -> dict[str, Any]:
    """Return the model's own keys where they say what the server says, else the server's numbers in these keys."""
    own = scale_and_shift(info.config)
    if own is not None and same_numbers(own[0], info.scale) and same_numbers(own[1], info.shift):
        return {key: info.config.get(key) for key in SCALING_KEYS}
    if len(info.scale) == len(info.shift) == 1:
        return dict(zip(SCALING_KEYS, (info.scale[0], info.shift[0] or None, None, None), strict=True))
    scale, shift = (_spread(numbers, info.latent_channels) for numbers in (info.scale, info.shift))
    return dict(zip(SCALING_KEYS, (1.0, None, shift, [1 / each for each in scale]), strict=True))


def _spread(numbers: Sequence[float], count: int) -> list[float]:
    return list(numbers) * (count // len(numbers))
