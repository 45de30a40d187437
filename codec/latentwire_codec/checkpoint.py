# SPDX-License-Identifier: Apache-2.0
"""Where a VAE comes from: a bundled name, a diffusers folder or a cached hub id -> a network with its weights.

Nothing here reaches the network, and nothing unpickles: weights are safetensors. Names and shapes must match the
class exactly; a missing tensor is refused, never left random.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from latentwire_codec.errors import CheckpointError, UnknownModel

WEIGHTS = Path(__file__).parent / "weights"
# Full precision first, a whole file before shards.
WEIGHT_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
)
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# Folders saved before diffusers 0.17 name the attention's layers so (SD 1.x and 2.x VAEs among them).
OLD_ATTENTION = re.compile(r"(attentions\.\d+)\.(query|key|value|proj_attn)\.")
NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class Checkpoint:
    """A network with its weights, and what identifies them.

    Attributes:
        module: a diffusers VAE, float32, on the CPU, in eval mode.
        class_name: its class.
        config: its configuration, complete with the class's defaults.
        latent_space: the identity of its latents, empty where it has none.
        latent_units: see `AutoencoderSpec`; None where config.json has none.
        weights_digest: SHA-256 over the tensors as they are stored, see `digest`.
        file_sha256: SHA-256 of the weights file where it is a single one, else empty.
    """

    module: nn.Module
    class_name: str
    config: Mapping[str, Any]
    latent_space: str
    latent_units: Sequence[float] | None
    weights_digest: str
    file_sha256: str


def bundled_names() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))


def load_checkpoint(source: str) -> Checkpoint:
    """Map a source to a network with its weights.

    Args:
        source: a bundled name (`f8c4`), a folder with a config.json and safetensors weights as diffusers saves them
            (whole, sharded or as the fp16 variant; a pipeline's folder stands for its `vae`), or the hub id of such
            a folder that is in the local Hugging Face cache.

    Raises:
        UnknownModel: nothing of that name is bundled, on disk or cached.
        CheckpointError: what was found cannot be read, is of a class that is not supported, or its tensors do not
            match the class.
    """
    folder = find_folder(source)
    config = _read_config(folder)
    class_name = str(config.get("_class_name", ""))
    stored, files = _read_weights(folder)
    module = _build(folder, class_name, config, stored)
    return Checkpoint(
        module=module,
        class_name=class_name,
        config={key: value for key, value in module.config.items() if not key.startswith("_")},
        latent_space=str(config.get("latent_space", "")),
        latent_units=_numbers(folder, config.get("latent_units")),
        weights_digest=digest(stored),
        file_sha256=_file_sha256(files[0]) if len(files) == 1 else "",
    )


def find_folder(source: str) -> Path:
    """Map a source to the folder that holds its config.json; raises what `load_checkpoint` raises."""
    if source in bundled_names():
        return WEIGHTS / source
    path = Path(source).expanduser()
    if path.is_file():
        raise CheckpointError(f"{source} is a file; give the folder that holds config.json and the safetensors weights")
    if not path.is_dir():
        path = _cached_snapshot(source)
    for folder in (path, path / "vae"):
        if (folder / "config.json").is_file():
            return folder
    raise CheckpointError(
        f"{source} has no config.json, nor a vae/config.json; give a folder that diffusers' save_pretrained wrote"
    )


def digest(weights: Mapping[str, Tensor]) -> str:
    """Map tensors to the SHA-256 that identifies them, 64 hex digits.

    For each tensor, sorted by name: the name, a zero byte, the dtype (`float32`), a zero byte, the shape (`192,4,1,1`),
    a zero byte, the elements in C order, little-endian.
    """
    sha256 = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        sha256.update(f"{name}\0{dtype}\0{','.join(map(str, tensor.shape))}\0".encode())
        sha256.update(tensor.flatten().view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Map a folder to its configuration and its tensors as they are stored, without building anything.

    Raises:
        CheckpointError: either is missing or cannot be read.
    """
    return _read_config(folder), _read_weights(folder)[0]


def _cached_snapshot(source: str) -> Path:
    """Map a hub id to its snapshot in the local Hugging Face cache."""
    if not HUB_ID.fullmatch(source):
        raise UnknownModel(
            f"no model {source!r}: it is neither a bundled one ({', '.join(bundled_names())}) nor a folder"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise UnknownModel(
            f"no model {source!r}: it is neither a folder nor in the local Hugging Face cache; "
            f"download it with `hf download {source}`"
        ) from error
    except HFValidationError as error:
        raise UnknownModel(f"no model {source!r}: it is not a folder, and cannot be a hub id: {error}") from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return config


def _numbers(folder: Path, value: Any) -> Sequence[float] | None:
    try:
        return None if value is None else [float(number) for number in value]
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: latent_units is {value!r}, not a list of numbers") from error


def _read_weights(folder: Path) -> tuple[dict[str, Tensor], list[Path]]:
    """Read the folder's tensors as they are stored, and name the files they came from."""
    found = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if found is None:
        raise CheckpointError(f"{folder} has no safetensors weights; looked for {', '.join(WEIGHT_FILES)}")
    files = [found] if found.suffix == ".safetensors" else _shards(found)
    weights: dict[str, Tensor] = {}
    for file in files:
        try:
            weights.update(load_file(file))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file} cannot be read as safetensors: {error}") from error
    return weights, files


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of shards: {error!r}") from error
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(f"{index} names files outside its folder")
    return [index.parent / name for name in names]


def _build(folder: Path, class_name: str, config: dict[str, Any], stored: Mapping[str, Tensor]) -> Any:
    """Build the class's network and give it exactly the stored tensors."""
    from diffusers import AutoencoderKL

    from latentwire_codec.pipeline_vae import AutoencoderLatentVAE, AutoencoderVectorVAE

    classes = {cls.__name__: cls for cls in (AutoencoderLatentVAE, AutoencoderVectorVAE, AutoencoderKL)}
    if class_name not in classes:
        raise CheckpointError(
            f"{folder / 'config.json'} names the class {class_name!r}; supported: {', '.join(classes)}"
        )
    try:
        with torch.device("meta"):  # no time is spent on random numbers that are replaced
            module = classes[class_name].from_config(config)
    except Exception as error:
        raise CheckpointError(f"{folder / 'config.json'} does not describe an {class_name}: {error}") from error
    weights = {_current_name(name): tensor.float() for name, tensor in stored.items()}
    for name, wanted in module.state_dict().items():
        # Old attention layers were 1x1 convolutions in some files: the same numbers in another shape.
        if name in weights and "attentions" in name and weights[name].numel() == wanted.numel():
            weights[name] = weights[name].reshape(wanted.shape)
    _refuse_differences(folder, dict(module.state_dict()), weights)
    module.load_state_dict(weights, strict=True, assign=True)
    return module.eval()


def _current_name(name: str) -> str:
    return OLD_ATTENTION.sub(lambda match: f"{match[1]}.{NEW_ATTENTION[match[2]]}.", name)


def _refuse_differences(folder: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    shared = wanted.keys() & found.keys()
    problems = {
        "missing": wanted.keys() - found.keys(),
        "not known to the class": found.keys() - wanted.keys(),
        "of another shape": {name for name in shared if wanted[name].shape != found[name].shape},
        "not finite": {name for name in shared if not found[name].isfinite().all()},
    }
    phrases = [f"{len(names)} {what} (such as {min(names)})" for what, names in problems.items() if names]
    if phrases:
        raise CheckpointError(f"the tensors in {folder} do not fit its config.json: {'; '.join(phrases)}")


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
