# SPDX-License-Identifier: Apache-2.0
"""Sources in, every image once and in order out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentwire_core.errors import DataError
from latentwire_train.data.crops import CentreCrop, Cover
from latentwire_train.data.folder import ImageFolder, Problem, Subset, scan_images
from latentwire_train.data.idx import IdxImages
from latentwire_train.data.views import View

COUNT = 7


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    """Seven images in a colour that says which it is."""
    for k in range(COUNT):
        Image.new("RGB", (30, 20 + k), (k * 20, 0, 255)).save(tmp_path / f"{k}.png")
    return scan_images(tmp_path)


def damage(folder: ImageFolder, index: int) -> None:
    path = Path(folder.items[index].origin.location)
    path.write_bytes(path.read_bytes()[:50])


def test_every_image_comes_once_in_order(folder: ImageFolder) -> None:
    batches = list(View(folder, Cover(8)).batches(3))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert torch.cat([batch.pixels for batch in batches])[:, 0, 0, 0].tolist() == [k * 20 for k in range(COUNT)]
    assert batches[0].pixels.shape == (3, 3, 8, 8)
    assert batches[0].pixels.dtype == torch.uint8


def test_a_batch_becomes_images_between_minus_one_and_one(folder: ImageFolder) -> None:
    (batch,) = View(folder, Cover(8)).batches(COUNT)
    images = batch.images("cpu")
    assert images.shape == (COUNT, 3, 8, 8)
    assert torch.equal(images, batch.pixels.float() / 127.5 - 1)
    assert images.is_contiguous()


def test_chosen_images_come_in_the_order_of_choice(folder: ImageFolder) -> None:
    batches = list(View(folder, CentreCrop(16)).batches(2, [5, 0, 5]))
    assert [batch.indices.tolist() for batch in batches] == [[5, 0], [5]]
    assert list(View(folder, CentreCrop(16)).batches(2, [])) == []


def test_a_damaged_image_is_left_out_and_named_once(folder: ImageFolder) -> None:
    damage(folder, 6)
    found: list[Problem] = []
    view = View(folder, Cover(8), report=found.append)
    for _ in range(2):
        assert [batch.indices.tolist() for batch in view.batches(3)] == [[0, 1, 2], [3, 4, 5]]
    assert [problem.name for problem in found] == ["6.png"]
    assert "truncated" in found[0].reason
    damage(folder, 1)
    with pytest.raises(DataError, match="2 of 7 images cannot be decoded"):
        list(view.batches(3))


def test_digits_come_as_they_are_in_all_channels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    digits = IdxImages(pixels, None, (Path("train-images-idx3-ubyte"),))
    (batch,) = View(digits, Cover(28)).batches(4)
    for channel in range(3):
        np.testing.assert_array_equal(batch.pixels[:, channel].numpy(), pixels)


def test_no_images_are_refused(folder: ImageFolder) -> None:
    with pytest.raises(DataError, match="no image to take"):
        View(Subset(folder, ()), Cover(8))
