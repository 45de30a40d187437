# SPDX-License-Identifier: Apache-2.0
"""Bytes -> a file written whole or not at all, whatever ends the process; arrays <-> the bytes of safetensors."""

import hashlib
import json
import os
import struct
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

PARTIAL = ".partial"
"""The suffix of partial files, whose names begin with a dot."""

try:
    import fcntl
except ImportError:  # Windows: each writer then has a partial file of its own
    fcntl = None  # type: ignore[assignment]


def write_whole(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file, whole or not at all, and the folders above it; several processes may write the same file.

    The bytes go to a hidden partial file beside the file first. A process that is killed may leave the partial file
    behind; the next writer of the same file removes it, and so does `remove_partials`.

    Args:
        path: the file.
        data: all of its bytes.
        replace: whether the file takes the place of one that is there.

    Raises:
        FileExistsError: there is a file, and it is not to be replaced.
        OSError: the file or a folder cannot be written; the earlier content stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, file = _open_partial(path)
    with file:
        try:
            file.write(data)
            file.flush()
            # Without fsync, a machine that loses power may keep the new name and lose the content.
            os.fsync(file.fileno())
            if replace:
                partial.replace(path)
            else:
                # Unlike a question beforehand, a second name for the file fails where another writer was faster.
                os.link(partial, path)
                partial.unlink()
        except BaseException:
            # While the file is locked: later the name may be another writer's.
            partial.unlink(missing_ok=True)
            raise


def sync_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk, so that a machine that loses power keeps a file that was renamed."""
    if fcntl is None:  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partials(folder: Path) -> int:
    """Remove the partial files that killed writers left in a folder; return their number."""
    return sum(_left_behind(partial) for partial in folder.glob(f".*{PARTIAL}"))


def _open_partial(path: Path) -> tuple[Path, BinaryIO]:
    """Create the partial file of a path and lock it; another writer at work gets a name of its own.

    Both names have a fixed length: the name of the file itself may be as long as the system allows.
    """
    partial = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}{PARTIAL}")
    while True:
        try:
            file: BinaryIO = partial.open("xb")
        except FileExistsError:
            if not _left_behind(partial):
                partial = path.with_name(f".{uuid.uuid4().hex}{PARTIAL}")
            continue
        if fcntl is None:
            return partial, file
        fcntl.flock(file, fcntl.LOCK_EX)
        # Before the lock was taken, another process may have removed the file as one left behind.
        if _is_named(file, partial):
            return partial, file
        file.close()


def _is_named(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _left_behind(partial: Path) -> bool:
    """Remove a partial file that no writer has locked; return whether its name is free now."""
    if fcntl is None:
        return False
    try:
        with partial.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The name may have gone on to another writer's file since this one was opened.
            if _is_named(file, partial):
                partial.unlink()
    except FileNotFoundError:
        pass
    except BlockingIOError:
        return False
    return True


def to_safetensors(tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Map arrays and metadata to a safetensors file: the same bytes for the same content.

    The library writes metadata in an order that changes from call to call; here they are in the order of their names.
    """
    data = save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, dict(metadata))
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def read_tensors(path: Path, what: str, file_format: str) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Map a safetensors file to its arrays and its metadata, which must state `file_format` under `format`.

    `what` names the contents in the messages, in the plural.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no safetensors file, or not one of that format.
    """
    with path.open("rb"):  # a missing file raises OSError here
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (AttributeError, SafetensorError, TypeError) as error:  # numpy lacks some dtypes of safetensors
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    if metadata.get("format") != file_format:
        raise ValueError(f"{path} has the format {metadata.get('format')!r}; {what} are {file_format!r}")
    return tensors, metadata
