# SPDX-License-Identifier: Apache-2.0
"""Latents of one image -> bytes in the forms that caches use, and the latents read back from them."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import zstandard
from PIL import Image

from benchmarks.report.model import Latents

ZSTD_LEVEL = 19
LEVELS = 256
FP8_LARGEST = 448.0  # the largest float8 e4m3fn; larger numbers are clipped to it
RANGE_BYTES = 8  # lowest and highest value of a channel, float32


@dataclass(frozen=True)
class Packed:
    """Latents in a form."""

    num_bytes: int  # the bytes that count
    latents: Latents  # the latents that are read back


@dataclass(frozen=True)
class Form:
    """A way to keep latents."""

    name: str  # its name in tables
    counted: str  # which bytes count
    pack: Callable[[Latents], Packed]  # maps latents, float32 (C,h,w), to their packed form


def zstd(data: bytes) -> int:
    """Return the bytes of a zstd frame of `data` at level 19."""
    return len(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(data))


def _float32(latents: Latents) -> Packed:
    return Packed(latents.nbytes, latents)


def _float16(latents: Latents) -> Packed:
    half = latents.astype(np.float16)
    return Packed(half.nbytes, half.astype(np.float32))


def _float8(latents: Latents) -> Packed:
    clipped = torch.from_numpy(latents).clamp(-FP8_LARGEST, FP8_LARGEST)
    return Packed(latents.size, clipped.to(torch.float8_e4m3fn).float().numpy())


def levels(latents: Latents) -> tuple[npt.NDArray[np.uint8], Latents]:
    """Map latents (C,h,w) to 256 even levels in the range of each channel, and to the latents read back from them."""
    low, high = (getattr(latents, name)(axis=(1, 2), keepdims=True) for name in ("min", "max"))
    step = np.where(high > low, (high - low) / (LEVELS - 1), 1).astype(np.float32)
    indices = np.rint((latents - low) / step).clip(0, LEVELS - 1).astype(np.uint8)
    return indices, (indices * step + low).astype(np.float32)


def _int8(latents: Latents) -> Packed:
    indices, restored = levels(latents)
    return Packed(indices.size + RANGE_BYTES * len(latents), restored)


def _int8_zstd(latents: Latents) -> Packed:
    indices, restored = levels(latents)
    return Packed(zstd(indices.tobytes()) + RANGE_BYTES * len(latents), restored)


def _png(latents: Latents) -> Packed:
    indices, restored = levels(latents)
    channels, height, width = indices.shape
    # Four channels are one RGBA picture, as such caches store them; other numbers are grey planes below each other.
    planes = np.moveaxis(indices, 0, 2) if channels == 4 else indices.reshape(channels * height, width)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(planes)).save(file, "PNG", optimize=True)
    return Packed(len(file.getvalue()) + RANGE_BYTES * channels, restored)


FLOAT32, FLOAT16, INT8 = "float32", "float16", "int8"
_RANGES = "and the range of each channel, 8 bytes"
FORMS = (
    Form(FLOAT32, "the numbers alone", _float32),
    Form(FLOAT16, "the numbers alone", _float16),
    Form(INT8, f"the numbers, 256 even levels in the range of each channel, {_RANGES}", _int8),
    Form("float8 e4m3", "the numbers alone, as they are, cut at 448", _float8),
    Form("PNG, 8 bit", f"the file of int8's numbers, RGBA or stacked grey, {_RANGES}", _png),
    Form("int8, zstd 19", f"the frame of int8's numbers, {_RANGES}", _int8_zstd),
)
