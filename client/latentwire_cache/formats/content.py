# SPDX-License-Identifier: Apache-2.0
"""Arrays and texts -> the bytes of a file, the same bytes each time: npy, npz, tar, pt."""

import io
import json
import posixpath
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]
DTYPES = ("float32", "float16", "bfloat16")


def cast(values: AnyArray, dtype: str, key: str) -> AnyArray:
    """Map float32 numbers to `float32`, `float16` or `bfloat16`.

    Raises:
        ValueError: the dtype is another one, or a number of the image `key` is not finite in it.
        ModuleNotFoundError: `ml_dtypes` is missing, for bfloat16.
    """
    if dtype not in DTYPES:
        raise ValueError(f"the dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    if dtype == "bfloat16":
        import ml_dtypes

        target: Any = ml_dtypes.bfloat16
    else:
        target = np.dtype(dtype)
    with np.errstate(over="ignore"):
        narrowed = np.ascontiguousarray(values.astype(target))
    if not np.isfinite(narrowed.astype(np.float32)).all():
        raise ValueError(f"a latent of {key} is not finite in {dtype}; choose float32, or leave the image out")
    return narrowed


def npy(array: AnyArray) -> bytes:
    """Map an array to the bytes of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(arrays: Mapping[str, AnyArray]) -> bytes:
    """Map arrays to the bytes of an .npz file; numpy writes no time into it."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # a mapping of arrays; the stubs see its first flag
    return buffer.getvalue()


def pt(value: Any) -> bytes:
    """Map arrays, alone or in a dict, to what `torch.save` writes of the same tensors; imports torch.

    Each tensor has memory of its own: torch.save writes the whole memory that a tensor looks at.
    """
    import torch

    def tensor(array: AnyArray) -> Any:
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.uint16).copy()).view(torch.bfloat16)
        return torch.from_numpy(array.copy())

    buffer = io.BytesIO()
    torch.save({k: tensor(v) for k, v in value.items()} if isinstance(value, Mapping) else tensor(value), buffer)
    return buffer.getvalue()


def json_text(value: Any) -> bytes:
    """Map a JSON value to text with sorted keys."""
    return (json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n").encode()


def tar(members: Sequence[tuple[str, bytes]]) -> bytes:
    """Map names and bytes to a tar file without times and owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def without_suffix(key: str) -> str:
    """Map the key of an image to its path without the suffix of the file, as the trainers cut it."""
    return posixpath.splitext(key)[0]
