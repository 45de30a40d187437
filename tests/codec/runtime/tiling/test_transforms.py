# SPDX-License-Identifier: Apache-2.0
"""Winograd's transforms, compiled: the same numbers on one core, on several, and wherever they are asked for."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from latentwire_codec.runtime.tiling import transforms
from latentwire_codec.runtime.tiling.transforms import CHUNK, REACH, TILE

# The transforms for the points 0, 1, -1, 1/2, -2 and infinity: rows of a patch, and of a tile.
BT = np.array(
    [
        [1, -1.5, -2, 1.5, 1, 0],
        [0, -1, 0.5, 2.5, 1, 0],
        [0, 1, -2.5, 0.5, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 0.5, -1, -0.5, 1, 0],
        [0, 1, -1.5, -2, 1.5, 1],
    ]
)
AT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 0.5, -2, 0], [0, 1, 1, 0.25, 4, 0], [0, 1, -1, 0.125, -8, 1]])

Array = npt.NDArray[np.floating[Any]]


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def cores(request: pytest.FixtureRequest) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def patches_of(pixels: Array) -> Array:
    down, across = ((side - 2) // TILE for side in pixels.shape[:2])
    patches = np.full((REACH, REACH, down, across, pixels.shape[2]), np.nan, pixels.dtype)
    transforms.analyse(pixels, patches)
    return patches


def pixels_of(products: Array, bias: Array) -> Array:
    _, _, down, across, channels = products.shape
    pixels = np.full((TILE * down, TILE * across, channels), np.nan, products.dtype)
    transforms.synthesise(products, bias, pixels)
    return pixels


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("float64", 1e-13)])
@pytest.mark.parametrize(
    ("down", "across", "channels"), [(1, 1, 1), (2, CHUNK, 8), (3, CHUNK + 1, 5), (1, 3 * CHUNK, 19)]
)
def test_patches_and_pixels_are_winograd_s(down: int, across: int, channels: int, dtype: str, error: float) -> None:
    random = np.random.default_rng(3)
    pixels = random.uniform(-1, 1, (TILE * down + 2, TILE * across + 2, channels)).astype(dtype)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (REACH, REACH), (0, 1))[::TILE, ::TILE]
    patches = np.einsum("ia,jb,yxcab->jiyxc", BT, BT, windows)
    assert np.abs(patches_of(pixels) - patches).max() < 100 * error

    products = random.uniform(-1, 1, (REACH, REACH, down, across, channels)).astype(dtype)
    bias = random.uniform(-1, 1, channels).astype(dtype)
    tiles = np.einsum("ia,jb,bayxc->yixjc", AT, AT, products) + bias
    assert np.abs(pixels_of(products, bias) - tiles.reshape(TILE * down, TILE * across, channels)).max() < 100 * error


@pytest.mark.usefixtures("cores")
def test_what_is_not_finite_stays_where_it_is() -> None:
    pixels = np.zeros((2 * TILE + 2, 2 * TILE + 2, 3), np.float32)
    pixels[-1, -1, 1] = np.nan
    found = np.asarray(np.isnan(patches_of(pixels)).any(axis=(0, 1)))
    assert found[1, 1].tolist() == [False, True, False]
    assert found.sum() == 1


def test_threads_may_ask_at_once() -> None:
    random = np.random.default_rng(3)
    images = [random.uniform(-1, 1, (6 * TILE + 2, 30 * TILE + 2, 16)).astype(np.float32) for _ in range(4)]
    expected = [patches_of(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            for one, other in zip(pool.map(patches_of, images), expected, strict=True):
                assert np.array_equal(one, other)


def run(script: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ANALYSE = """
import os, sys
import numpy as np, torch
from latentwire_codec.runtime.tiling import transforms
torch.set_num_threads(2)
def patches():
    result = np.empty((6, 6, 4, 20, 8), np.float32)
    transforms.analyse(np.ones((18, 82, 8), np.float32), result)
    return result.sum()
here = patches()
"""


def test_a_forked_process_with_one_thread_computes_too() -> None:
    forked = """
child = os.fork()
if not child:
    torch.set_num_threads(1)  # as a DataLoader's worker does
    os._exit(0 if patches() == here else 1)
assert os.waitpid(child, 0)[1] == 0
print("computed")
"""
    assert run(ANALYSE + forked) == "computed\n"


def test_nothing_has_to_be_kept_on_disk() -> None:
    # This way of numba's to find a folder never finds one.
    kept = "from numba import config; print(config.CACHE_LOCATOR_CLASSES, here)"
    assert run(ANALYSE + kept, NUMBA_CACHE_LOCATOR_CLASSES="_IPythonCacheLocator") == run(
        ANALYSE + "print('_IPythonCacheLocator', here)"
    )


def test_without_openmp_threads_take_turns() -> None:
    at_once = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    assert set(pool.map(lambda _: patches(), range(50))) == {here}
import numba
print(numba.threading_layer())
"""
    assert run(ANALYSE + at_once, NUMBA_THREADING_LAYER="workqueue") == "workqueue\n"
