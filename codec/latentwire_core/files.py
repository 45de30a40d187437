# SPDX-License-Identifier: Apache-2.0
"""Bytes -> a file written whole or not at all, whatever ends the process; a safetensors file -> its arrays."""

import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all, and the folders above it.

    A process that is killed meanwhile may leave `.NAME.partial` beside the file; NAME is 32 hex digits.

    Raises:
        OSError: the file or a folder cannot be written; an earlier file stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Each writer has its own partial file: two writers never meet, and a long name stays within the system's limit.
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            # Without fsync, a machine that loses power may keep the new name and lose the content.
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(path: Path, what: str, file_format: str) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Map a safetensors file to its arrays and its metadata.

    Args:
        path: the file.
        what: the expected content for the message, in the plural.
        file_format: the format that its metadata must state under `format`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no safetensors file, or has another format.
    """
    with path.open("rb"):  # a missing file is an OSError of its own, not a broken safetensors file
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (AttributeError, SafetensorError, TypeError) as error:  # a dtype that numpy lacks is no SafetensorError
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    if metadata.get("format") != file_format:
        raise ValueError(f"{path} has the format {metadata.get('format')!r}; {what} are {file_format!r}")
    return tensors, metadata
