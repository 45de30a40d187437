# SPDX-License-Identifier: Apache-2.0
"""AutoencoderTiny in single files: TAESD's names -> diffusers' names, and shapes -> configuration.

TAESD comes as a pair of files, an encoder's and a decoder's, whose names are bare positions (`0.weight`), or as one
with both. Its decoder begins with a layer without tensors, so that each position is one more than in diffusers.

Source: https://github.com/madebyollin/taesd, taesd.py.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from latentwire_core.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]

BARE = re.compile(r"\d+\.(conv\.\d+\.|skip\.)?(weight|bias)")
LAYER = re.compile(r"(?:taesd_)?(encoder|decoder)\.(layers\.)?(\d+)\.((?:conv\.\d+\.|skip\.)?(?:weight|bias))")
CONVOLUTION, BLOCK = re.compile(r"\d+\.weight"), re.compile(r"\d+\.conv\.0\.weight")


def is_half(names: Iterable[str]) -> bool:
    """Tell whether these are the tensors of one half of a pair of files."""
    return all(BARE.fullmatch(name) for name in names)


def half_of(names: Iterable[str]) -> str:
    """Map the names in one file of a pair to its half, `encoder` or `decoder`."""
    return "encoder" if "0.weight" in names else "decoder"


def other_file(path: Path, half: str) -> Path:
    """Map one file of a pair to the other file; raises CheckpointError where the other file is missing."""
    other = "decoder" if half == "encoder" else "encoder"
    mate = path.with_name(other.join(path.name.rsplit(half, 1)))
    if mate == path or not mate.is_file():
        raise CheckpointError(
            f"{path} is the {half} of a TAESD alone; put its {other} beside it, named alike (taesd_encoder.safetensors,"
            " taesd_decoder.safetensors)"
        )
    return mate


def diffusers_names(names: Iterable[str]) -> dict[str, str]:
    """Map each name, under `encoder.` or `decoder.`, to diffusers' name."""

    def rename(match: re.Match[str]) -> str:
        half, layers, position, rest = match.groups()
        before = half == "decoder" and layers is None
        return f"{half}.layers.{int(position) - before}.{rest}"

    return {name: LAYER.sub(rename, name) if LAYER.fullmatch(name) else name for name in names}


def is_tiny(shapes: Shapes) -> bool:
    """Tell whether tensors under diffusers' names are an AutoencoderTiny's."""
    return "encoder.layers.0.weight" in shapes and "decoder.layers.0.weight" in shapes


def config_of(shapes: Shapes) -> dict[str, Any]:
    """Map shapes under diffusers' names to the part of the configuration that follows from them.

    The blocks between one convolution and the next form a stage.
    """
    config: dict[str, Any] = {"latent_channels": shapes["decoder.layers.0.weight"][1]}
    for half, at in (("encoder", 0), ("decoder", 1)):
        layers = [name.removeprefix(f"{half}.layers.") for name in shapes if name.startswith(f"{half}.layers.")]
        convolutions = sorted(int(name.split(".")[0]) for name in layers if CONVOLUTION.fullmatch(name))
        blocks = [int(name.split(".")[0]) for name in layers if BLOCK.fullmatch(name)]
        stages = list(pairwise(convolutions))
        config[f"num_{half}_blocks"] = [sum(start < block < end for block in blocks) for start, end in stages]
        # The width of a stage is the output of the convolution before it, or the input of the one behind it.
        config[f"{half}_block_out_channels"] = [shapes[f"{half}.layers.{stage[at]}.weight"][at] for stage in stages]
    return config
