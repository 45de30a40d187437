# SPDX-License-Identifier: Apache-2.0
"""Where a VAE comes from: a bundled name, a diffusers folder, a cached hub id, a single file -> a network with weights.

Nothing here reaches the network, and no code in a file is run.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentwire_codec.checkpoints.build import build_network
from latentwire_codec.checkpoints.families import BY_NAME, candidates, registered_family
from latentwire_codec.checkpoints.folder import bundled_names, find_folder, stored_in_folder
from latentwire_codec.checkpoints.scaling import Detected, Numbers, Requested, in_config, resolve
from latentwire_codec.checkpoints.single_file import stored_in_file
from latentwire_core import identity
from latentwire_core.errors import CheckpointError
from latentwire_core.scaling import Scaling


@dataclass(frozen=True)
class Checkpoint:
    """A network with its weights, and what identifies them.

    `AutoencoderSpec` explains the attributes that are not here.

    Attributes:
        module: a diffusers VAE, float32, on the CPU, in eval mode.
        config: its configuration, complete with the class's defaults; it states the scaling.
        weights_digest: SHA-256 over the tensors under the network's names, see `digest`; the same for one VAE in a
            folder, a single file and a full checkpoint.
        file_sha256: SHA-256 of the weights file where it is a single one, else empty; it begins with A1111's hash.
    """

    module: nn.Module
    class_name: str
    config: Mapping[str, Any]
    scaling: Scaling
    latent_space: str
    latent_units: Sequence[float] | None
    weights_digest: str
    file_sha256: str


def load_checkpoint(
    source: str,
    *,
    scale: Numbers | None = None,
    shift: Numbers | None = None,
    latent_space: str | None = None,
    allow_pickle: bool = False,
) -> Checkpoint:
    """Map a source to a network with its weights.

    Args:
        source: a bundled name (`f8c4`, `f8c32`); a folder with config.json and weights as diffusers saves them (whole,
            sharded or as the fp16 variant; a pipeline's folder stands for its `vae`); the hub id of such a folder
            that is in the local Hugging Face cache; or a single file (see `single_file`): a VAE's own, or a full
            checkpoint, of which only the VAE is read.
        scale: scaled = (raw - shift) * scale, 1 or C numbers; None: see `scaling` for what decides.
        shift: 1 or C numbers; None: see `scaling`.
        latent_space: the name of the latent space; a family's name (`sd1`, `sdxl`, `sd3`, `flux1` ...) also gives the
            factors where no configuration does. None: the space that the source shows.
        allow_pickle: whether `.bin` weights are taken; they are unpickled as tensors only, as `.ckpt` and `.pt` are.

    Raises:
        UnknownModel: nothing of that name is bundled, on disk or cached.
        CheckpointError: the source cannot be read or trusted, its class is not supported, its tensors do not match the
            class, or nothing tells how its latents are scaled.
    """
    path = Path(source).expanduser()
    if source not in bundled_names() and path.is_file():
        stored = stored_in_file(path, allow_pickle)
    else:
        stored = stored_in_folder(find_folder(source), allow_pickle)
    module, tensors = build_network(stored)
    config = {key: value for key, value in module.config.items() if not key.startswith("_")}
    weights_digest = digest(tensors)
    file_sha256 = ""
    if len(stored.files) == 1:
        with stored.files[0].open("rb") as file:
            file_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    detected = Detected(
        where=stored.where,
        config=config,
        declared=stored.declared,
        tensors=tensors,
        candidates=candidates(stored.class_name, config),
        family=stored.family or registered_family(file_sha256, weights_digest),
        defaults="_class_name" in stored.declared,
    )
    scaling, space = resolve(Requested(scale, shift, latent_space), detected)
    config = in_config(scaling, config)
    if space in BY_NAME:
        config |= {key: value for key, value in BY_NAME[space].config.items() if key not in stored.declared}
    return Checkpoint(
        module=module,
        class_name=stored.class_name,
        config=config,
        scaling=scaling,
        latent_space=space,
        latent_units=_units(stored.where, stored.declared.get("latent_units")),
        weights_digest=weights_digest,
        file_sha256=file_sha256,
    )


def digest(weights: Mapping[str, Tensor]) -> str:
    """Map tensors to the SHA-256 that identifies them, 64 hex digits: see `identity.weights_digest`."""
    return identity.weights_digest(weights, _parts)


def _parts(tensor: Tensor) -> tuple[str, tuple[int, ...], memoryview]:
    elements = tensor.contiguous().flatten().view(torch.uint8).numpy().data
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), elements


def _units(where: Path, value: Any) -> Sequence[float] | None:
    try:
        return None if value is None else [float(number) for number in value]
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: latent_units is {value!r}, not a list of numbers") from error
