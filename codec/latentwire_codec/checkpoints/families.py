# SPDX-License-Identifier: Apache-2.0
"""The VAEs that people use, by latent space: network, scale and shift; the signs in a file -> the family of its VAE.

Some families differ in their weights alone (SD 1.x and SDXL, SD 3 and FLUX.1), so that shapes rarely decide.
The factors come from the published configurations.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentwire_core.errors import CheckpointError
from latentwire_core.scaling import Scaling

DIGESTS = Path(__file__).parents[1] / "weights" / "digests.json"
DIGESTS_VARIABLE = "LATENTWIRE_DIGESTS"
# A1111 shows so many digits of a file's SHA-256.
MIN_DIGITS = 10

SD_WIDTHS = (128, 256, 512, 512)
# fmt: off
WAN_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)
WAN_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)
# fmt: on


@dataclass(frozen=True)
class Family:
    """VAEs that share one latent space.

    Attributes:
        name: the name of the latent space.
        class_name: the class of the network.
        network: the part of the configuration that identifies the network among the networks of its class.
        scaling: the factors; None where each checkpoint has its own, in its configuration or in its weights.
        config: further keys that the tensors do not show and that differ from the class's defaults.
    """

    name: str
    class_name: str
    network: Mapping[str, Any]
    scaling: Scaling | None
    config: Mapping[str, Any] = field(default_factory=dict)


def _kl(widths: Sequence[int], channels: int, quant_convs: bool) -> dict[str, Any]:
    return {
        "block_out_channels": widths,
        "layers_per_block": 2,
        "latent_channels": channels,
        "use_quant_conv": quant_convs,
        "use_post_quant_conv": quant_convs,
    }


def _normalised(mean: Sequence[float], std: Sequence[float], factor: float = 1.0) -> Scaling:
    """Map statistics of each channel to the scaling of the pipelines: (raw - mean) / std * factor."""
    return Scaling(tuple(factor / s for s in std), tuple(mean))


def _tiny(channels: int) -> dict[str, Any]:
    return {"latent_channels": channels, "encoder_block_out_channels": (64,) * 4}


SD, SD16 = _kl(SD_WIDTHS, 4, True), _kl(SD_WIDTHS, 16, False)
COGVIEW = {**_kl((128, 512, 1024, 1024), 16, False), "layers_per_block": 3}
PLAYGROUND = _normalised((-1.6574, 1.886, -1.383, 2.5155), (8.4927, 5.9022, 6.5498, 5.2299), 0.5)
WAN = _normalised(WAN_MEAN, WAN_STD)
FAMILIES = (
    Family("sd1", "AutoencoderKL", SD, Scaling((0.18215,)), {"sample_size": 512}),
    Family("sdxl", "AutoencoderKL", SD, Scaling((0.13025,)), {"sample_size": 1024}),
    Family("playground25", "AutoencoderKL", SD, PLAYGROUND, {"sample_size": 1024}),
    Family("sd-x4-upscaler", "AutoencoderKL", _kl(SD_WIDTHS[:3], 4, True), Scaling((0.08333,)), {"sample_size": 256}),
    Family("sd3", "AutoencoderKL", SD16, Scaling((1.5305,), (0.0609,)), {"sample_size": 1024}),
    Family("flux1", "AutoencoderKL", SD16, Scaling((0.3611,), (0.1159,)), {"sample_size": 1024}),
    Family("cogview4", "AutoencoderKL", COGVIEW, Scaling((1.0,)), {"sample_size": 1024}),
    Family("flux2", "AutoencoderKLFlux2", _kl(SD_WIDTHS, 32, True), None),
    # The raw latents of these are the scaled latents of the VAE that they are named after.
    Family("taesd", "AutoencoderTiny", _tiny(4), Scaling((1.0,))),
    Family("taesdxl", "AutoencoderTiny", _tiny(4), Scaling((1.0,))),
    Family("taesd3", "AutoencoderTiny", _tiny(16), Scaling((1.0,))),
    Family("taef1", "AutoencoderTiny", _tiny(16), Scaling((1.0,))),
    Family("dc-ae-f32c32-sana", "AutoencoderDC", {"latent_channels": 32}, Scaling((0.41407,))),
    Family("wan21", "AutoencoderKLWan", {"z_dim": 16, "base_dim": 96}, WAN),
    Family("qwen-image", "AutoencoderKLQwenImage", {"z_dim": 16, "base_dim": 96}, WAN),
)
BY_NAME = {family.name: family for family in FAMILIES}

# Tensors that a full checkpoint holds beside its VAE, and the family of the VAE; the first that is there decides.
COMPANIONS = (
    ("edm_mean", "playground25"),
    ("model.diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.bias", "sd3"),
    ("model.diffusion_model.single_stream_modulation.lin.weight", "flux2"),
    ("model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale", "flux1"),
)
# The width of the UNet's cross-attention identifies the family. 1280 is ambiguous: SDXL's refiner has it together with
# size conditioning, the older text2img-large without.
ATTENTION = re.compile(r"model\.diffusion_model\..*\.attn2\.to_k\.weight")
TEXT_WIDTHS = {768: "sd1", 1024: "sd1", 2048: "sdxl", 1280: "sdxl"}
SDXL_SIGN = "model.diffusion_model.label_emb.0.0.weight"


def candidates(class_name: str, config: Mapping[str, Any]) -> list[Family]:
    """Map a network to the families that have the same network."""
    # A configuration that was read from JSON has lists.
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    return [
        family
        for family in FAMILIES
        if family.class_name == class_name and all(plain.get(key) == value for key, value in family.network.items())
    ]


def companion_family(shapes: Mapping[str, tuple[int, ...]], channels: int, levels: int) -> str:
    """Map the tensors of a full checkpoint to the family of its VAE.

    The VAE has `channels` (C) and `levels` (log2 f + 1). The name is empty where the tensors show no family, or a
    family whose latents have another shape.
    """
    width = next((shape[-1] for name, shape in shapes.items() if ATTENTION.fullmatch(name)), 0)
    of_unet = TEXT_WIDTHS.get(width, "")
    if of_unet == "sdxl" and SDXL_SIGN not in shapes:
        of_unet = ""
    name = next((name for tensor, name in COMPANIONS if tensor in shapes), of_unet)
    network = BY_NAME[name].network if name else {}
    fits = (network.get("latent_channels"), len(network.get("block_out_channels", ()))) == (channels, levels)
    return name if fits else ""


def registered_family(*digests: str) -> str:
    """Map digests (of a file or of its weights, 64 hex digits each) to the family that the registries name, or "".

    A registry is a JSON object whose keys are the first digits of a SHA-256, at least 10 hex digits, and whose values
    are names of families. One is in the package. The variable LATENTWIRE_DIGESTS may name another, which decides first.

    Raises:
        CheckpointError: a registry cannot be read, or has another form.
    """
    own = os.environ.get(DIGESTS_VARIABLE)
    for path in ([Path(own).expanduser()] if own else []) + [DIGESTS]:
        for start, name in _registry(path).items():
            if any(digest.startswith(start.lower()) for digest in digests):
                return name
    return ""


def _registry(path: Path) -> dict[str, str]:
    try:
        registry = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the registry of digests {path} cannot be read: {error}") from error
    if not isinstance(registry, dict):
        raise CheckpointError(f"the registry of digests {path} holds no JSON object")
    for start, name in registry.items():
        if not re.fullmatch(rf"[0-9a-fA-F]{{{MIN_DIGITS},64}}", start):
            raise CheckpointError(f"{path}: {start!r} does not begin a SHA-256; give {MIN_DIGITS} to 64 hex digits")
        if not isinstance(name, str) or name not in BY_NAME:
            raise CheckpointError(f"{path}: {name!r} is no family that is known; known: {', '.join(BY_NAME)}")
    return registry
