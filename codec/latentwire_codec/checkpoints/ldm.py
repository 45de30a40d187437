# SPDX-License-Identifier: Apache-2.0
"""AutoencoderKL in a single file: LDM's names -> diffusers' names, and shapes -> configuration.

Stable Diffusion's own files have LDM's names, and so have FLUX's and most files in A1111's and ComfyUI's folders.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

# Names that are the same in both are not here. The up blocks are counted from the other end: see `diffusers_names`.
RENAMES = (
    (r"(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out."),
    (r"(encoder|decoder)\.mid\.block_1\.", r"\1.mid_block.resnets.0."),
    (r"(encoder|decoder)\.mid\.block_2\.", r"\1.mid_block.resnets.1."),
    (r"(encoder|decoder)\.mid\.attn_1\.norm\.", r"\1.mid_block.attentions.0.group_norm."),
    (r"(encoder|decoder)\.mid\.attn_1\.proj_out\.", r"\1.mid_block.attentions.0.to_out.0."),
    (r"(encoder|decoder)\.mid\.attn_1\.([qkv])\.", r"\1.mid_block.attentions.0.to_\2."),
    (r"encoder\.down\.(\d+)\.block\.", r"encoder.down_blocks.\1.resnets."),
    (r"encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"(resnets\.\d+)\.nin_shortcut\.", r"\1.conv_shortcut."),
    # FLUX.2 keeps its quant convs in the encoder and the decoder.
    (r"^encoder\.quant_conv\.", "quant_conv."),
    (r"^decoder\.post_quant_conv\.", "post_quant_conv."),
)
UP = re.compile(r"^decoder\.up\.(\d+)\.(block|upsample)\.")
UP_PARTS = {"block": "resnets.", "upsample": "upsamplers.0."}
DOWN_BLOCK = re.compile(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.conv1\.weight")
UP_BLOCK = re.compile(r"decoder\.up_blocks\.(\d+)\.resnets\.0\.conv1\.weight")
SIGNS = ("encoder.conv_in.weight", "decoder.conv_in.weight", "encoder.down_blocks.0.resnets.0.conv1.weight")


def diffusers_names(names: Iterable[str]) -> dict[str, str]:
    """Map each name, LDM's or diffusers', to diffusers' name."""
    names = list(names)
    top = max((int(match[1]) for name in names if (match := UP.match(name))), default=0)

    def rename(name: str) -> str:
        name = UP.sub(lambda match: f"decoder.up_blocks.{top - int(match[1])}.{UP_PARTS[match[2]]}", name)
        for old, new in RENAMES:
            name = re.sub(old, new, name)
        return name

    return {name: rename(name) for name in names}


def is_kl(shapes: Shapes) -> bool:
    """Tell whether tensors under diffusers' names are an AutoencoderKL's."""
    return all(sign in shapes for sign in SIGNS)


def config_of(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    """Map shapes under diffusers' names to the class, and to the part of its configuration that follows from them."""
    down = {(int(match[1]), int(match[2])): shapes[name][0] for name in shapes if (match := DOWN_BLOCK.fullmatch(name))}
    up = {int(match[1]): shapes[name][0] for name in shapes if (match := UP_BLOCK.fullmatch(name))}
    levels = 1 + max(level for level, _ in down)
    widths = [down.get((level, 0), 0) for level in range(levels)]
    config: dict[str, Any] = {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes.get("decoder.conv_out.weight", (3,))[0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": widths,
        "layers_per_block": sum(level == 0 for level, _ in down),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        "mid_block_add_attention": any(name.startswith("encoder.mid_block.attentions.") for name in shapes),
    }
    if "bn.running_mean" not in shapes:
        return "AutoencoderKL", config
    decoder_widths = [up.get(level, 0) for level in reversed(range(levels))]
    if decoder_widths != widths:
        config["decoder_block_out_channels"] = decoder_widths
    return "AutoencoderKLFlux2", config
