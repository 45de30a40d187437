# SPDX-License-Identifier: Apache-2.0
"""Rows of pixels -> patches of Winograd's F(4x4, 3x3), and their products -> rows of pixels; compiled.

Each transform is one pass from memory to memory. As a row of torch's sums it would be twelve passes, which would take
as long as the products.

A block is CHUNK tiles of one row: the values between its two passes stay in the cache of a core.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from latentwire_codec.compiled import inlined
from latentwire_codec.runtime.compiling import compiled, run

TILE = 4
"""Side of an output tile."""
REACH = 6
"""Side of the patch of the input that an output tile depends on."""
CHUNK = 8

Array = npt.NDArray[np.floating[Any]]


def analyse(pixels: Array, patches: Array) -> None:
    """Apply Winograd's B^T to the columns and the rows of every patch of pixels (4n+2,4t+2,C).

    It writes patches (6,6,n,t,C): the place in a patch, across before down; then the tiles. All arrays here are
    contiguous, in float32 or float64.
    """
    run(_analyse, _analyse_on_cores, pixels, patches)


def synthesise(products: Array, bias: Array, pixels: Array) -> None:
    """Apply Winograd's A^T to the products (6,6,n,t,C) of patches, add the bias (C,), and write pixels (4n,4t,C)."""
    run(_synthesise, _synthesise_on_cores, products, bias, pixels)


@inlined
def _six(
    d0: Array, d1: Array, d2: Array, d3: Array, d4: Array, d5: Array,
    t0: Array, t1: Array, t2: Array, t3: Array, t4: Array, t5: Array,
) -> None:  # fmt: skip
    half, three_halves, two = t0.dtype.type(0.5), t0.dtype.type(1.5), t0.dtype.type(2)
    for c in range(t0.size):
        e0, e1 = d2[c] + three_halves * d1[c] - d0[c], d3[c] + three_halves * d2[c] - d1[c]
        e2, e3 = d4[c] + three_halves * d3[c] - d2[c], d5[c] + three_halves * d4[c] - d3[c]
        even, odd = d4[c] - d2[c], d3[c] - d1[c]
        t0[c] = e2 - e0
        t1[c] = e2 + e1
        t2[c] = e2 - e1
        t3[c] = even + two * odd
        t4[c] = even - half * odd
        t5[c] = e3 - e1


@inlined
def _four(
    m0: Array, m1: Array, m2: Array, m3: Array, m4: Array, m5: Array, bias: Array,
    y0: Array, y1: Array, y2: Array, y3: Array,
) -> None:  # fmt: skip
    half, two = y0.dtype.type(0.5), y0.dtype.type(2)
    for c in range(y0.size):
        even, odd = m1[c] + m2[c] + bias[c], m1[c] - m2[c] + bias[c]
        near, far = half * m3[c], two * m4[c]
        y0[c] = m0[c] + even + m3[c] + m4[c]
        y1[c] = odd + near - far
        near, far = half * near, two * far
        y2[c] = even + near + far
        y3[c] = odd + half * near - two * far + m5[c]


@compiled
def _analyse_block(d: Array, t: Array, block: int) -> None:
    _, _, _, across, channels = t.shape
    chunks = -(-across // CHUNK)
    row, first = block // chunks, block % chunks * CHUNK
    count = min(across - first, CHUNK)
    rows = np.empty((REACH, TILE * CHUNK + 2, channels), d.dtype)
    y = TILE * row
    for q in range(TILE * count + 2):
        x = TILE * first + q
        _six(d[y, x], d[y + 1, x], d[y + 2, x], d[y + 3, x], d[y + 4, x], d[y + 5, x],
             rows[0, q], rows[1, q], rows[2, q], rows[3, q], rows[4, q], rows[5, q])  # fmt: skip
    for i in range(REACH):
        for tile in range(count):
            q, x = TILE * tile, first + tile
            _six(rows[i, q], rows[i, q + 1], rows[i, q + 2], rows[i, q + 3], rows[i, q + 4], rows[i, q + 5],
                 t[0, i, row, x], t[1, i, row, x], t[2, i, row, x], t[3, i, row, x], t[4, i, row, x],
                 t[5, i, row, x])  # fmt: skip


@compiled
def _synthesise_block(m: Array, bias: Array, y: Array, block: int) -> None:
    _, _, _, across, channels = m.shape
    chunks = -(-across // CHUNK)
    row, first = block // chunks, block % chunks * CHUNK
    columns, zeros = np.empty((TILE, REACH, channels), m.dtype), np.zeros(channels, m.dtype)
    v = TILE * row
    for x in range(first, min(across, first + CHUNK)):
        for i in range(REACH):
            _four(m[0, i, row, x], m[1, i, row, x], m[2, i, row, x], m[3, i, row, x], m[4, i, row, x], m[5, i, row, x],
                  zeros, columns[0, i], columns[1, i], columns[2, i], columns[3, i])  # fmt: skip
        for j in range(TILE):
            u = TILE * x + j
            _four(columns[j, 0], columns[j, 1], columns[j, 2], columns[j, 3], columns[j, 4], columns[j, 5],
                  bias, y[v, u], y[v + 1, u], y[v + 2, u], y[v + 3, u])  # fmt: skip


@inlined
def _blocks(tiles: Array) -> int:
    blocks: int = tiles.shape[2] * -(-tiles.shape[3] // CHUNK)
    return blocks


# Each loop stands twice, because numba's cache on disk does not tell the options of two compilations apart.
def _analyse_all(pixels: Array, patches: Array) -> None:
    for block in range(_blocks(patches)):
        _analyse_block(pixels, patches, block)


def _analyse_all_on_cores(pixels: Array, patches: Array) -> None:
    for block in numba.prange(_blocks(patches)):
        _analyse_block(pixels, patches, np.int64(block))  # the type of the loop above: no second compilation


def _synthesise_all(products: Array, bias: Array, pixels: Array) -> None:
    for block in range(_blocks(products)):
        _synthesise_block(products, bias, pixels, block)


def _synthesise_all_on_cores(products: Array, bias: Array, pixels: Array) -> None:
    for block in numba.prange(_blocks(products)):
        _synthesise_block(products, bias, pixels, np.int64(block))


_analyse, _synthesise = compiled(_analyse_all), compiled(_synthesise_all)
_analyse_on_cores = compiled(_analyse_all_on_cores, parallel=True)
_synthesise_on_cores = compiled(_synthesise_all_on_cores, parallel=True)
