# SPDX-License-Identifier: Apache-2.0
"""A class, its configuration and stored tensors -> a network with exactly these weights.

Names and shapes must match the class; a missing tensor is refused, never left random.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentwire_codec.networks.calling import CALLINGS
from latentwire_core.errors import CheckpointError

# Names that training leaves in a VAE's own file: losses (a discriminator among them), averages of weights.
IGNORED = re.compile(r"(loss|model_ema)\.")
# A counter of batch norm, without effect on its output; some files leave it out.
COUNTER = "bn.num_batches_tracked"
# Keys that we write into a configuration of any class; diffusers would warn of keys that the class does not have.
OWN_KEYS = ("latent_space", "latent_units")
# Names of the attention's layers in folders saved before diffusers 0.17 (SD 1.x and 2.x VAEs among them).
OLD_ATTENTION = re.compile(r"(attentions\.\d+)\.(query|key|value|proj_attn)\.")
NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class StoredVAE:
    """A VAE as its files hold it.

    Attributes:
        where: its name in messages.
        class_name: its class.
        config: the configuration of the class, as far as it is declared or follows from the shapes.
        declared: the part of the configuration that a file states: config.json, or the JSON file beside a single file.
        tensors: as they are stored, under the class's names.
        files: the files that hold the tensors.
        family: the name of the family that the rest of a full checkpoint shows; empty: it shows no family.
    """

    where: Path
    class_name: str
    config: Mapping[str, Any]
    declared: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    files: tuple[Path, ...]
    family: str = ""


def build_network(stored: StoredVAE) -> tuple[Any, dict[str, Tensor]]:
    """Map a stored VAE to its network, and to its tensors under the network's names and shapes.

    Returns:
        The network in float32, on the CPU, in eval mode; the tensors in the dtypes that they are stored in.

    Raises:
        CheckpointError: the class is not supported, the configuration does not describe it, or the tensors do not fit
            the network.
    """
    module = _empty(stored)
    wanted: dict[str, Tensor] = module.state_dict()
    tensors = {
        OLD_ATTENTION.sub(lambda match: f"{match[1]}.{NEW_ATTENTION[match[2]]}.", name): tensor
        for name, tensor in stored.tensors.items()
        if not IGNORED.match(name)
    }
    for name, tensor in tensors.items():
        # Attention layers were 1x1 convolutions once: the same numbers in another shape.
        if "attentions" in name and name in wanted and tensor.numel() == wanted[name].numel():
            tensors[name] = tensor.reshape(wanted[name].shape)
    if COUNTER in wanted:
        tensors[COUNTER] = torch.tensor(0)
    _refuse_differences(stored.where, wanted, tensors)
    # Copied: the tensors are mapped from the file, and a write to the file would change a running network.
    weights = {
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in tensors.items()
    }
    module.load_state_dict(weights, strict=True, assign=True)
    return module.eval(), tensors


def _empty(stored: StoredVAE) -> Any:
    """Build the network without weights."""
    import diffusers

    from latentwire_codec.networks import pipeline_vae

    class_name = stored.class_name
    if class_name not in CALLINGS:
        raise CheckpointError(f"{stored.where} names the class {class_name!r}; supported: {', '.join(CALLINGS)}")
    home = pipeline_vae if hasattr(pipeline_vae, class_name) else diffusers
    if not hasattr(home, class_name):
        raise CheckpointError(f"{stored.where} is an {class_name}, which diffusers {diffusers.__version__} lacks")
    kind = getattr(home, class_name)
    ours = {key: stored.config[key] for key in OWN_KEYS if key in stored.config}
    strange = ours.keys() - inspect.signature(kind.__init__).parameters.keys()
    try:
        with torch.device("meta"):  # random weights would take time and be replaced
            module = kind.from_config({key: value for key, value in stored.config.items() if key not in strange})
        module.register_to_config(**{key: ours[key] for key in strange})
        return module
    except Exception as error:
        beside = stored.where.with_suffix(".json").name if stored.where.is_file() else "config.json"
        raise CheckpointError(
            f"{stored.where} does not describe an {class_name}: {error}; what tensors don't show, such as "
            f"norm_num_groups, is read from {beside} beside them"
        ) from error


def _refuse_differences(where: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    shared = wanted.keys() & found.keys()
    # Quantized weights are integers, which mean nothing without their scale.
    other = {name for name in shared if wanted[name].is_floating_point() and not found[name].is_floating_point()}
    problems = {
        "missing": wanted.keys() - found.keys(),
        "not known to the class": found.keys() - wanted.keys(),
        "of another shape": {name for name in shared if wanted[name].shape != found[name].shape},
        "not of floating-point numbers": other,
        "not finite": {name for name in shared - other if not found[name].float().isfinite().all()},
    }
    phrases = [f"{len(names)} {what} (such as {min(names)})" for what, names in problems.items() if names]
    if phrases:
        raise CheckpointError(f"the tensors in {where} do not fit its configuration: {'; '.join(phrases)}")
