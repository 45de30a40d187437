# SPDX-License-Identifier: Apache-2.0
"""Feature maps -> their sums, and their group normalisation with SiLU: each in one pass over memory; compiled.

A map is (1,C,H,W) in channels_last, float32 or bfloat16. numpy holds bfloat16 as uint16: the upper half of a float32.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload
from torch import Tensor, nn

from latentwire_codec.compiled import inlined
from latentwire_codec.runtime.compiling import compiled, run

BLOCK = 64
"""Pixels of a block that one core normalises at a time."""
LOG2_E, LN_2 = np.float32(1.4426950408889634), np.float32(0.6931471805599453)

Array = npt.NDArray[Any]


def add(total: Tensor, term: Tensor) -> tuple[Tensor, Tensor]:
    """Add a bfloat16 map to another map: return the result, float32, and its sums as `measure` does.

    A total in float32 becomes the result itself.
    """
    result = total if total.dtype == torch.float32 else torch.empty_like(total, dtype=torch.float32)
    totals = _pixels(total)
    sums = _no_sums(totals)
    run(_add_all, _add_all_on_cores, totals, _pixels(term), _pixels(result), sums)
    return result, torch.from_numpy(sums.sum(axis=0))


def measure(values: Tensor) -> Tensor:
    """Map a feature map to the sum and the sum of squares of each channel, float64 (2,C)."""
    pixels = _pixels(values)
    sums = _no_sums(pixels)
    run(_measure_all, _measure_all_on_cores, pixels, sums)
    return torch.from_numpy(sums.sum(axis=0))


def normalise(values: Tensor, sums: Tensor, layer: nn.GroupNorm, silu: bool) -> Tensor:
    """Map a feature map and its sums to its group normalisation, with SiLU on request.

    The statistics are float64, the arithmetic is float32; the result is rounded once, to bfloat16.
    """
    pixels = _pixels(values)
    factor, offset = _normalisation(sums, len(pixels), layer)
    result = torch.empty_like(values, dtype=torch.bfloat16)
    run(_normalise_all, _normalise_all_on_cores, pixels, factor, offset, silu, _pixels(result))
    return result


def _normalisation(sums: Tensor, pixels: int, layer: nn.GroupNorm) -> tuple[Array, Array]:
    """Return factor and offset of each channel, float32 (C,): the layer computes factor * x + offset."""
    mean, square = (sums / pixels).view(2, layer.num_groups, -1).mean(dim=2, keepdim=True)
    scale = torch.rsqrt((square - mean.square()).clamp_(min=0) + layer.eps)
    weight, bias = (each.double().view(layer.num_groups, -1) for each in (layer.weight, layer.bias))
    factor = weight * scale
    return factor.float().flatten().numpy(), (bias - factor * mean).float().flatten().numpy()


def _no_sums(pixels: Array) -> Array:
    return np.zeros((min(len(pixels), torch.get_num_threads()), 2, pixels.shape[1]))


def _pixels(values: Tensor) -> Array:
    """Map a feature map to its memory, (H*W,C)."""
    pixels = values[0].permute(1, 2, 0).view(-1, values.shape[1])
    if pixels.dtype == torch.float32:
        return pixels.numpy()
    words: Array = pixels.view(torch.int16).numpy().view(np.uint16)
    return words


@intrinsic  # type: ignore[untyped-decorator]
def _float(typing: Any, word: Any) -> Any:
    """Read a uint32 as the bits of a float32."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), build


@intrinsic  # type: ignore[untyped-decorator]
def _bits(typing: Any, number: Any) -> Any:
    """Read the bits of a float32 as a uint32."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), build


def _value(stored: Any) -> Any:
    """Map an element of a map, uint16 or float32, to a float32."""


@overload(_value)  # type: ignore[untyped-decorator]
def _value_of(stored: Any) -> Any:
    def of_word(stored: Any) -> Any:
        return _float(np.uint32(stored) << np.uint32(16))

    def of_number(stored: Any) -> Any:
        return stored

    return of_word if stored == types.uint16 else of_number


@inlined
def _sum_pixel(values: Array, one: Array, square: Array) -> None:
    for c in range(values.size):
        value = np.float64(_value(values[c]))
        one[c] += value
        square[c] += value * value


@inlined
def _add_pixel(total: Array, term: Array, result: Array) -> None:
    for c in range(total.size):
        result[c] = _value(total[c]) + _value(term[c])


@inlined
def _normalise_pixel(values: Array, factor: Array, offset: Array, result: Array) -> None:
    for c in range(values.size):
        result[c] = _rounded(factor[c] * _value(values[c]) + offset[c])


@inlined
def _activate_pixel(values: Array, factor: Array, offset: Array, result: Array) -> None:
    for c in range(values.size):
        value = factor[c] * _value(values[c]) + offset[c]
        # e^-x = 2^whole * e^rest, |rest| <= ln(2) / 2: Taylor's polynomial of degree 6 is exact to 2e-7 there.
        x = min(max(-value, np.float32(-87)), np.float32(87))
        whole = np.floor(x * LOG2_E + np.float32(0.5))
        rest = x - whole * LN_2
        power = np.float32(1 / 120) + rest * np.float32(1 / 720)
        power = np.float32(1 / 24) + rest * power
        power = np.float32(1 / 6) + rest * power
        power = np.float32(1 / 2) + rest * power
        power = np.float32(1) + rest * power
        power = np.float32(1) + rest * power
        scale = _float(np.uint32(np.int32(whole) + np.int32(127)) << np.uint32(23))
        result[c] = _rounded(value / (np.float32(1) + power * scale))


@inlined
def _rounded(value: np.float32) -> np.uint16:
    """Round to the nearest bfloat16, ties to even."""
    bits = _bits(value)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@compiled
def _add_part(totals: Array, terms: Array, results: Array, sums: Array, part: int) -> None:
    count, parts = len(totals), len(sums)
    for pixel in range(count * part // parts, count * (part + 1) // parts):
        _add_pixel(totals[pixel], terms[pixel], results[pixel])
        _sum_pixel(results[pixel], sums[part, 0], sums[part, 1])


@compiled
def _measure_part(pixels: Array, sums: Array, part: int) -> None:
    count, parts = len(pixels), len(sums)
    for pixel in range(count * part // parts, count * (part + 1) // parts):
        _sum_pixel(pixels[pixel], sums[part, 0], sums[part, 1])


@compiled
def _normalise_block(pixels: Array, factor: Array, offset: Array, silu: bool, results: Array, block: int) -> None:
    for pixel in range(block * BLOCK, min((block + 1) * BLOCK, len(pixels))):
        if silu:
            _activate_pixel(pixels[pixel], factor, offset, results[pixel])
        else:
            _normalise_pixel(pixels[pixel], factor, offset, results[pixel])


# Each loop stands twice, because numba's cache on disk does not tell the options of two compilations apart.
def _add(totals: Array, terms: Array, results: Array, sums: Array) -> None:
    for part in range(len(sums)):
        _add_part(totals, terms, results, sums, part)


def _add_on_cores(totals: Array, terms: Array, results: Array, sums: Array) -> None:
    for part in numba.prange(len(sums)):
        _add_part(totals, terms, results, sums, np.int64(part))


def _measure(pixels: Array, sums: Array) -> None:
    for part in range(len(sums)):
        _measure_part(pixels, sums, part)


def _measure_on_cores(pixels: Array, sums: Array) -> None:
    for part in numba.prange(len(sums)):
        _measure_part(pixels, sums, np.int64(part))


def _normalise(pixels: Array, factor: Array, offset: Array, silu: bool, results: Array) -> None:
    for block in range(-(-len(pixels) // BLOCK)):
        _normalise_block(pixels, factor, offset, silu, results, block)


def _normalise_on_cores(pixels: Array, factor: Array, offset: Array, silu: bool, results: Array) -> None:
    for block in numba.prange(-(-len(pixels) // BLOCK)):
        _normalise_block(pixels, factor, offset, silu, results, np.int64(block))


_add_all, _measure_all, _normalise_all = compiled(_add), compiled(_measure), compiled(_normalise)
_add_all_on_cores = compiled(_add_on_cores, parallel=True)
_measure_all_on_cores = compiled(_measure_on_cores, parallel=True)
_normalise_all_on_cores = compiled(_normalise_on_cores, parallel=True)
