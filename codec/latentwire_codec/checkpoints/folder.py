# SPDX-License-Identifier: Apache-2.0
"""A name -> the folder that it stands for; a diffusers folder -> its configuration and tensors."""

import json
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from latentwire_codec.checkpoints.build import StoredVAE
from latentwire_codec.checkpoints.weights_file import open_weights
from latentwire_core.errors import CheckpointError, UnknownModel

WEIGHTS = Path(__file__).parents[1] / "weights"
# Full precision first, a whole file before shards; the index names the shards.
WEIGHT_FILES = tuple(
    f"diffusion_pytorch_model.{rest}"
    for rest in (
        "safetensors", "safetensors.index.json",
        "fp16.safetensors", "safetensors.index.fp16.json", "fp16.safetensors.index.json",
    )
)  # fmt: skip
PICKLED_FILES = tuple(
    f"diffusion_pytorch_model.{rest}" for rest in ("bin", "bin.index.json", "fp16.bin", "bin.index.fp16.json")
)
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def bundled_names() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))


def bundled_in(latent_space: str) -> str:
    """Return the name of the bundled model with a latent space; empty where no bundled model has it."""
    for name in bundled_names():
        if latent_space and read_config(WEIGHTS / name / "config.json").get("latent_space") == latent_space:
            return name
    return ""


def find_folder(source: str) -> Path:
    """Map a bundled name, a folder, or a hub id in the local cache to the folder that holds its config.json.

    Raises:
        UnknownModel: nothing of that name is bundled, on disk or cached.
        CheckpointError: there is no config.json.
    """
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


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Map a folder to its configuration and stored tensors; raises CheckpointError where a file cannot be read."""
    return read_config(folder / "config.json"), _read_weights(folder, allow_pickle=False)[0]


def stored_in_folder(folder: Path, allow_pickle: bool = False) -> StoredVAE:
    """Map a folder with a config.json and weights, as diffusers saves them, to the VAE in it; raises as `read_folder`.

    `allow_pickle` tells whether weights in `.bin` are taken where there are no safetensors.
    """
    config = read_config(folder / "config.json")
    tensors, files = _read_weights(folder, allow_pickle)
    return StoredVAE(folder, str(config.get("_class_name", "")), config, config, tensors, files)


def read_config(path: Path) -> dict[str, Any]:
    """Map a JSON file to its object; raises CheckpointError where the file cannot be read, or holds no object."""
    try:
        config = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return config


def _cached_snapshot(source: str) -> Path:
    """Map a hub id to its snapshot in the local Hugging Face cache."""
    if not HUB_ID.fullmatch(source):
        raise UnknownModel(
            f"no model {source!r}: it is neither a bundled one ({', '.join(bundled_names())}) nor a folder or file"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise UnknownModel(
            f"no model {source!r}: it is neither a folder nor a file, nor in the local Hugging Face cache; correct the "
            f"path, or download it with `hf download {source}`"
        ) from error
    except HFValidationError as error:
        raise UnknownModel(f"no model {source!r}: it is not a folder, and cannot be a hub id: {error}") from error


def _read_weights(folder: Path, allow_pickle: bool) -> tuple[dict[str, Tensor], tuple[Path, ...]]:
    """Return the folder's tensors as they are stored, and the files that hold them."""
    names = WEIGHT_FILES + PICKLED_FILES if allow_pickle else WEIGHT_FILES
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        remedy = ""
        if any((folder / name).is_file() for name in PICKLED_FILES):
            remedy = "; it has pickled ones: allow pickles (allow_pickle=True), or save it as safetensors"
        raise CheckpointError(f"{folder} has no safetensors weights; looked for {', '.join(names)}{remedy}")
    files = _shards(found) if found.suffix == ".json" else (found,)
    weights: dict[str, Tensor] = {}
    for file in files:
        opened = open_weights(file, allow_pickle)
        weights.update(opened.read(opened.shapes))
    return weights, files


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text("utf-8-sig"))["weight_map"].values()))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of shards: {error!r}") from error
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(f"{index} names files outside its folder")
    return tuple(index.parent / name for name in names)
