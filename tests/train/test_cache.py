# SPDX-License-Identifier: Apache-2.0
"""Images in, the same images out, some of them from memory."""

import os
import pickle

import numpy as np
import pytest

from latentwire_codec.images.geometry import Pixels
from latentwire_core.errors import ImageError
from latentwire_train.data.cache import ImageCache

IMAGE_BYTES = 10 * 10 * 3


class Counting:
    """Twenty images of 300 bytes; number 7 is damaged; reads are counted."""

    def __init__(self) -> None:
        self.reads: list[int] = []

    def __len__(self) -> int:
        return 20

    def name(self, index: int) -> str:
        return f"image {index}"

    def read(self, index: int) -> Pixels:
        self.reads.append(index)
        if index == 7:
            raise ImageError("is damaged")
        return np.full((10, 10, 3), index, np.uint8)


def test_an_image_is_read_once_while_it_is_kept() -> None:
    source = Counting()
    cache = ImageCache(source, 2 * IMAGE_BYTES)
    for index in (3, 4, 5, 3, 4, 5):
        assert cache.read(index)[0, 0, 0] == index
    assert source.reads == [3, 4, 5, 5]
    assert cache.held_images == 2
    assert cache.name(3) == "image 3"
    assert len(cache) == 20


@pytest.mark.parametrize("max_bytes", [0, 1, IMAGE_BYTES - 1, IMAGE_BYTES, 5 * IMAGE_BYTES + 7, 10**6])
def test_the_bound_is_never_exceeded(max_bytes: int) -> None:
    cache = ImageCache(Counting(), max_bytes)
    cache.fill(threads=2)
    for index in (0, 19, 5):
        cache.read(index)
        assert cache.held_bytes <= max_bytes
    assert cache.held_images == min(19, max_bytes // IMAGE_BYTES)
    assert cache.held_bytes == cache.held_images * IMAGE_BYTES


def test_filling_leaves_damaged_images_to_whoever_reads_them() -> None:
    source = Counting()
    cache = ImageCache(source, 10**6)
    calls: list[tuple[int, int]] = []
    cache.fill(progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (20, 20)
    source.reads.clear()
    assert cache.read(6)[0, 0, 0] == 6
    with pytest.raises(ImageError, match="is damaged"):
        cache.read(7)
    assert source.reads == [7]


def test_what_is_kept_cannot_be_written_to() -> None:
    cache = ImageCache(Counting(), 10**6)
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            cache.read(0)[0, 0, 0] = 1


def test_a_copy_in_another_process_starts_empty() -> None:
    cache = ImageCache(Counting(), 10**6)
    cache.fill()
    copy = pickle.loads(pickle.dumps(cache))
    assert (copy.held_bytes, copy.max_bytes, len(copy)) == (0, 10**6, 20)
    assert copy.read(4)[0, 0, 0] == 4
    assert copy.held_images == 1


def test_workers_share_what_is_left_of_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    class Worker:
        num_workers = 3

    cache = ImageCache(Counting(), 8 * IMAGE_BYTES)
    cache.read(0)
    cache.read(1)
    monkeypatch.setattr("latentwire_train.data.cache.get_worker_info", Worker)
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as if this were a fork
    for index in range(2, 20):
        if index != 7:
            cache.read(index)
    assert cache.held_images == 4  # the two that are shared, and a third of the six that are left


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="max_bytes is -1"):
        ImageCache(Counting(), -1)
