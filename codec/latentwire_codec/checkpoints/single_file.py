# SPDX-License-Identifier: Apache-2.0
"""A single file -> the VAE in it, under diffusers' names: LDM, A1111, ComfyUI, full checkpoints, TAESD, FLUX, Wan.

The network follows from names and shapes. A JSON file beside it may state what they do not show: `NAME.json` for
`NAME.safetensors`, or config.json where it is not another network's. It holds a whole diffusers configuration, or some
of its keys (scaling_factor, shift_factor, latents_mean, latents_std, latent_space, norm_num_groups ...).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentwire_codec.checkpoints import ldm, taesd
from latentwire_codec.checkpoints.build import IGNORED, StoredVAE
from latentwire_codec.checkpoints.families import companion_family
from latentwire_codec.checkpoints.folder import read_config
from latentwire_codec.checkpoints.weights_file import WeightsFile, open_weights
from latentwire_codec.networks.calling import CALLINGS
from latentwire_core.errors import CheckpointError

# Where a full checkpoint keeps its VAE.
PREFIXES = ("first_stage_model.", "vae.")
# The name that an AutoencoderKL has in every layout, below whatever a training framework puts before it.
SIGN = "encoder.conv_in.weight"
WAN_SIGN = "decoder.middle.0.residual.0.gamma"
DC_SIGN = "decoder.stages.1.op_list.0.main.conv.conv.weight"


def stored_in_file(path: Path, allow_pickle: bool = False) -> StoredVAE:
    """Map a file, see `weights_file.open_weights`, to the VAE in it; nothing else of a full checkpoint is read.

    Raises:
        CheckpointError: the file cannot be read or trusted, or holds no known VAE.
    """
    opened = open_weights(path, allow_pickle)
    try:
        return _stored(opened, _sidecar(path), allow_pickle)
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds tensors with a VAE's names, but not its shapes: {error!r}") from error


def _stored(opened: WeightsFile, declared: Mapping[str, Any], allow_pickle: bool) -> StoredVAE:
    prefix = _prefix(opened)
    # Short name to full name; only the short names are used below.
    names = {full.removeprefix(prefix): full for full in opened.shapes if full.startswith(prefix)}
    names = {name: full for name, full in names.items() if not IGNORED.match(name)}
    if names and taesd.is_half(names):
        return _pair(opened, declared, allow_pickle)
    if WAN_SIGN in names:
        return _wan(opened, names, declared)
    kl = ldm.diffusers_names(names)
    tiny = taesd.diffusers_names(kl.values())
    sources = {tiny[kl[name]]: full for name, full in names.items()}
    if len(sources) < len(names):
        raise CheckpointError(f"{opened.path} has {len(names) - len(sources)} tensors twice, under different names")
    shapes = {name: opened.shapes[full] for name, full in sources.items()}
    class_name, config = _describe(opened.path, shapes, declared)
    read = opened.read(sources.values())
    tensors = {name: read[full] for name, full in sources.items()}
    levels = len(config.get("block_out_channels", ()))
    family = companion_family(opened.shapes, config.get("latent_channels", 0), levels) if prefix else ""
    return StoredVAE(opened.path, class_name, config, declared, tensors, (opened.path,), family)


def _prefix(opened: WeightsFile) -> str:
    """Return what stands before the names of the VAE; raise CheckpointError where several VAEs are there."""
    for start in PREFIXES:
        if any(name.startswith(start) for name in opened.shapes):
            return start
    found = sorted({name.removesuffix(SIGN) for name in opened.shapes if name.endswith(SIGN)})
    if len(found) > 1 and "" not in found:
        raise CheckpointError(
            f"{opened.path} holds a VAE below each of {', '.join(found)}; save the tensors of the one that is wanted"
        )
    return found[0] if found else ""


def _describe(path: Path, shapes: ldm.Shapes, declared: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Map shapes under diffusers' names, and declared keys, to a class and its configuration."""
    if "_class_name" in declared:
        return str(declared["_class_name"]), dict(declared)
    if ldm.is_kl(shapes):
        class_name, config = ldm.config_of(shapes)
    elif taesd.is_tiny(shapes):
        class_name, config = "AutoencoderTiny", taesd.config_of(shapes)
    elif DC_SIGN in shapes:
        raise CheckpointError(
            f"{path} is an AutoencoderDC in its makers' layout; give the folder of its diffusers form"
        )
    else:
        first = ", ".join(sorted(shapes)[:3])
        raise CheckpointError(
            f"{path} holds no VAE that is known: neither LDM's nor diffusers' AutoencoderKL, nor TAESD, nor Wan; "
            f"it has {len(shapes)} tensors, the first {first}; give the folder of its diffusers form"
        )
    return class_name, {**config, **declared}


def _sidecar(path: Path) -> dict[str, Any]:
    """Read the JSON file beside a single file; {}: there is no such file."""
    named, shared = path.with_suffix(".json"), path.with_name("config.json")
    if named.is_file():
        return read_config(named)
    declared = read_config(shared) if shared.is_file() else {}
    # In a whole repository config.json may describe the diffusion model, as in Wan 2.1's.
    return declared if str(declared.get("_class_name", "AutoencoderKL")) in CALLINGS else {}


def _pair(opened: WeightsFile, declared: Mapping[str, Any], allow_pickle: bool) -> StoredVAE:
    """Read a TAESD whose encoder and decoder are two files."""
    half = taesd.half_of(opened.shapes)
    other = open_weights(taesd.other_file(opened.path, half), allow_pickle)
    if not taesd.is_half(other.shapes) or taesd.half_of(other.shapes) == half:
        raise CheckpointError(f"{other.path} is not the other half of {opened.path}")
    first, second = (opened, other) if half == "encoder" else (other, opened)
    tensors = {f"encoder.{name}": tensor for name, tensor in first.read(first.shapes).items()}
    tensors |= {f"decoder.{name}": tensor for name, tensor in second.read(second.shapes).items()}
    names = taesd.diffusers_names(tensors)
    tensors = {names[name]: tensor for name, tensor in tensors.items()}
    config = {**taesd.config_of({name: tuple(tensor.shape) for name, tensor in tensors.items()}), **declared}
    return StoredVAE(opened.path, "AutoencoderTiny", config, declared, tensors, (first.path, second.path))


def _wan(opened: WeightsFile, names: Mapping[str, str], declared: Mapping[str, Any]) -> StoredVAE:
    """Read a Wan 2.1 VAE in its makers' layout, or Qwen-Image's in the same layout, where its class is declared."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    read = opened.read(names.values())
    tensors = convert_wan_vae_to_diffusers({name: read[full] for name, full in names.items()})
    config = {"z_dim": opened.shapes[names["conv2.weight"]][0], "base_dim": len(read[names["encoder.conv1.bias"]])}
    class_name = str(declared.get("_class_name", "AutoencoderKLWan"))
    return StoredVAE(opened.path, class_name, {**config, **declared}, declared, tensors, (opened.path,))
