# SPDX-License-Identifier: Apache-2.0
"""A file of tensors -> their names and shapes at once, their numbers on request; no code in a file is ever run.

A full checkpoint is many times larger than its VAE: only the requested tensors are read.
"""

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from latentwire_codec.checkpoints.file_kind import FileKind, file_kind
from latentwire_core.errors import CheckpointError
from latentwire_core.formats import PICKLE_SUFFIXES

SAFETY = (
    "code in a file is never run; take the VAE's safetensors, or save its tensors with safetensors.torch.save_file "
    "where the file was made"
)

# torch's messages name the function that a pickle wants to call.
CODE = re.compile(r"GLOBAL (\S+)")
ADVICE = "weights_only"
# Names that torch.compile and parallel training put before those of a network.
COMPILED, PARALLEL = "_orig_mod.", "module."
STATE = "state_dict"


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of one file.

    Attributes:
        path: the file.
        shapes: the shape of each tensor, by name; names are without `_orig_mod.` and `module.`, which torch.compile and
            parallel training add.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    _stored: Mapping[str, str]
    _pickled: Mapping[str, Tensor] | None

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Map names to their stored tensors, and read no others; raises CheckpointError where reading fails."""
        if self._pickled is not None:
            return {name: self._pickled[self._stored[name]] for name in names}
        with _safetensors(self.path) as tensors:
            return {name: tensors.get_tensor(self._stored[name]) for name in names}


def open_weights(path: Path, allow_pickle: bool = False) -> WeightsFile:
    """Map a file to its tensors.

    The first bytes tell the kind, not the name. Safetensors hold nothing but tensors. Pickles are taken where the name
    says so (`.ckpt`, `.pt`, `.pth`), and elsewhere where they are allowed: torch unpickles tensors and plain containers
    only, and a file that needs anything else is refused.

    Raises:
        CheckpointError: the file cannot be read, is of another kind, needs code to run, or holds no tensors.
    """
    kind = file_kind(path)
    if kind is FileKind.SAFETENSORS:
        with _safetensors(path) as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        return WeightsFile(path, *_unwrapped(path, shapes), None)
    if path.suffix.lower() not in PICKLE_SUFFIXES and not allow_pickle:
        raise CheckpointError(
            f"{path} is a pickle; allow pickles (allow_pickle=True, serve --allow-pickle), or save it as safetensors"
        )
    tensors = _unpickle(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return WeightsFile(path, *_unwrapped(path, shapes), tensors)


def _unwrapped(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Map names to shapes, and to the names as stored, without what torch.compile and its parallel modules add."""
    stored = {full: full.replace(COMPILED, "") for full in shapes}
    if all(name.startswith(PARALLEL) for name in stored.values()):
        stored = {full: name.removeprefix(PARALLEL) for full, name in stored.items()}
    names = {name: full for full, name in stored.items()}
    if len(names) < len(shapes):
        raise CheckpointError(f"{path} has {len(shapes) - len(names)} tensors twice, with and without {COMPILED!r}")
    return {name: shapes[full] for name, full in names.items()}, names


@contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error


def _unpickle(path: Path) -> dict[str, Tensor]:
    """Read a pickle of tensors; from a zip (torch >= 1.6) they are mapped, not read."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # hostile bytes raise nearly anything in the unpickler
        code = CODE.search(str(error))
        if code:
            raise CheckpointError(f"{path} is no pickle of tensors alone: it needs {code[1]}; {SAFETY}") from error
        first = next(iter(str(error).splitlines()), "")
        # torch's longer messages advise to run the code of the file.
        reason = type(error).__name__ if ADVICE in first else f"{type(error).__name__} {first}".strip()
        raise CheckpointError(f"{path} cannot be read as a pickle of tensors: {reason}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; a mapping of names to tensors is needed")
    return _tensors_in(path, content)


def _tensors_in(path: Path, content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Map what a training framework saved to its weights: beside them it keeps numbers, such as the epoch."""
    found = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    inner = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Mapping) and _holds_tensors(value)
    }
    if STATE in inner:
        return _tensors_in(path, inner[STATE])
    if found:
        return {name: tensor.detach() for name, tensor in found.items()}
    if len(inner) == 1:
        return _tensors_in(path, *inner.values())
    if inner:
        raise CheckpointError(
            f"{path} holds tensors below each of {', '.join(sorted(inner))}; save the one that is wanted by itself"
        )
    keys = ", ".join(sorted(map(str, content))[:5]) or "no key"
    raise CheckpointError(f"{path} holds no tensors; it has {keys}")


def _holds_tensors(content: Mapping[Any, Any], depth: int = 3) -> bool:
    named = [value for key, value in content.items() if isinstance(key, str)]
    if any(isinstance(value, Tensor) for value in named):
        return True
    return depth > 1 and any(_holds_tensors(value, depth - 1) for value in named if isinstance(value, Mapping))
