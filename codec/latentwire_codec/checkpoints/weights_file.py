# SPDX-License-Identifier: Apache-2.0
"""A file of tensors -> their names and shapes at once, their numbers on request; no code in a file is ever run.

A full checkpoint is many times larger than its VAE: only the requested tensors are read.
"""

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from latentwire_core.errors import CheckpointError
from latentwire_core.formats import PICKLE_SUFFIXES, SAFETENSORS_SUFFIXES, WEIGHT_SUFFIXES

SAFETY = (
    "code in a file is never run; where you trust it, load it once with torch.load(..., weights_only=False) and save "
    "its tensors with safetensors.torch.save_file"
)

# A clone without Git LFS has a file that begins so in the place of each large file.
LFS_POINTER = b"version https://git-lfs.github.com/spec/"

# torch's messages name the function that a pickle wants to call.
CODE = re.compile(r"GLOBAL (\S+)")


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of one file.

    Attributes:
        path: the file.
        shapes: the shape of each tensor, by name.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    _pickled: Mapping[str, Tensor] | None

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Map names to their stored tensors, and read no others; raises CheckpointError where reading fails."""
        if self._pickled is not None:
            return {name: self._pickled[name] for name in names}
        with _safetensors(self.path) as tensors:
            return {name: tensors.get_tensor(name) for name in names}


def open_weights(path: Path, allow_pickle: bool = False) -> WeightsFile:
    """Map a file to its tensors.

    Safetensors hold nothing but tensors. The other kinds are pickles (`.ckpt`, `.pt`, `.pth`, and `.bin` where
    allowed): torch unpickles tensors and plain containers only, and a file that needs anything else is refused.

    Raises:
        CheckpointError: the file cannot be read, is of another kind, needs code to run, or holds no tensors.
    """
    suffix = path.suffix.lower()
    with suppress(OSError), path.open("rb") as file:  # a file that cannot be read is reported below
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise CheckpointError(
                f"{path} is a Git LFS pointer, not the weights themselves; fetch them with `git lfs pull`"
            )
    if suffix in SAFETENSORS_SUFFIXES:
        with _safetensors(path) as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        return WeightsFile(path, shapes, None)
    if suffix in PICKLE_SUFFIXES or (suffix == ".bin" and allow_pickle):
        tensors = _unpickle(path)
        return WeightsFile(path, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, tensors)
    if suffix == ".bin":
        raise CheckpointError(f"{path} is a pickle; allow pickles (allow_pickle=True), or save it as safetensors")
    raise CheckpointError(f"{path} is of no kind that is known; known: {', '.join(WEIGHT_SUFFIXES)}, or a folder")


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
        reason = f"{type(error).__name__} {next(iter(str(error).splitlines()), '')}".strip()
        raise CheckpointError(f"{path} cannot be read as a pickle of tensors: {reason}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; a mapping of names to tensors is needed")
    # Beside the tensors a training framework keeps numbers such as the epoch.
    found = ((name, value) for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor))
    tensors = {name: value.detach() for name, value in found}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors")
    return tensors
