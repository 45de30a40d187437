# SPDX-License-Identifier: Apache-2.0
"""Images in, the same images out, some of them from memory."""

import pickle

import numpy as np
import pytest

from latentwire_codec.images.geometry import Pixels
from latentwire_core.errors import ImageError
from latentwire_train.data.cache import ImageCache

IMAGE_BYTES = 10 * 10 * 3
GOOD = [index for index in range(20) if index != 7]


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


def decoded_again(cache: ImageCache, source: Counting) -> list[int]:
    """Read every good image; return those that the cache does not hold."""
    source.reads.clear()
    for index in GOOD:
        assert cache.read(index)[0, 0, 0] == index
    return source.reads


@pytest.mark.parametrize("max_bytes", [0, 1, IMAGE_BYTES - 1, IMAGE_BYTES, 5 * IMAGE_BYTES + 7, 10**6])
def test_the_first_images_are_held_up_to_the_bound(max_bytes: int) -> None:
    source = Counting()
    cache = ImageCache(source, max_bytes)
    assert decoded_again(cache, source) == GOOD[max_bytes // IMAGE_BYTES :]
    assert (len(cache), cache.name(3)) == (20, "image 3")


def test_damaged_images_are_left_to_whoever_reads_them() -> None:
    source = Counting()
    cache = ImageCache(source, 10**6)
    assert decoded_again(cache, source) == []
    with pytest.raises(ImageError, match="is damaged"):
        cache.read(7)
    assert source.reads == [7]


def test_a_held_image_cannot_be_written_to() -> None:
    cache = ImageCache(Counting(), 10**6)
    with pytest.raises(ValueError, match="read-only"):
        cache.read(0)[0, 0, 0] = 1


def test_a_copy_for_another_process_holds_nothing_and_reads_the_same() -> None:
    cache = ImageCache(Counting(), 10**6)
    copy = pickle.loads(pickle.dumps(cache))
    assert len(pickle.dumps(cache)) < IMAGE_BYTES
    assert len(copy) == 20
    assert [copy.read(index)[0, 0, 0] for index in GOOD] == GOOD
