# SPDX-License-Identifier: Apache-2.0
"""Sources in, every image once and in order out, with its attributes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentwire_train.data.crops import CentreCrop, Cover
from latentwire_train.data.folder import DataError, ImageFolder, Problem, Subset, scan_folder
from latentwire_train.data.idx import IdxImages
from latentwire_train.data.views import LabelledView, View

pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create", "ignore:This process .* is multi-threaded:DeprecationWarning"
)
COUNT = 7


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    """Seven images in a colour that says which it is."""
    for k in range(COUNT):
        Image.new("RGB", (30, 20 + k), (k * 20, 0, 255)).save(tmp_path / f"{k}.png")
    return scan_folder(tmp_path)


def damage(folder: ImageFolder, index: int) -> None:
    path = folder.root / folder.items[index].path
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.own_process
@pytest.mark.parametrize("workers", [0, 3])
def test_every_image_comes_once_in_order(folder: ImageFolder, workers: int) -> None:
    batches = list(View(folder, Cover(8)).batches(3, workers=workers))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert torch.cat([batch.pixels for batch in batches])[:, 0, 0, 0].tolist() == [k * 20 for k in range(COUNT)]
    assert batches[0].pixels.shape == (3, 3, 8, 8)
    assert batches[0].pixels.dtype == torch.uint8


def test_chosen_images_come_in_the_order_of_choice(folder: ImageFolder) -> None:
    batches = list(View(folder, CentreCrop(16)).batches(2, indices=[5, 0, 5]))
    assert [batch.indices.tolist() for batch in batches] == [[5, 0], [5]]
    assert list(View(folder, CentreCrop(16)).batches(2, indices=[])) == []
    with pytest.raises(IndexError, match="image 7 of 7"):
        View(folder, Cover(8)).batches(2, indices=[7])
    with pytest.raises(ValueError, match="batch_size is 0"):
        View(folder, Cover(8)).batches(0)


@pytest.mark.own_process
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_left_out_and_named_once(folder: ImageFolder, workers: int) -> None:
    damage(folder, 6)
    found: list[Problem] = []
    view = View(folder, Cover(8), report=found.append)
    for _ in range(2):
        assert [batch.indices.tolist() for batch in view.batches(3, workers=workers)] == [[0, 1, 2], [3, 4, 5]]
    assert [problem.name for problem in found] == ["6.png"]
    assert view.problems == tuple(found)
    with pytest.raises(DataError, match=r"^6.png: .*truncated"):
        view.image(6)
    damage(folder, 1)
    with pytest.raises(DataError, match="2 of 7 images cannot be decoded"):
        list(view.batches(3, workers=workers))


def test_labels_stay_with_their_images(folder: ImageFolder) -> None:
    damage(folder, 2)
    values = np.array([[1, -1], [-1, -1], [1, 1], [-1, 1], [1, -1], [1, 1], [-1, -1]], np.int8)
    view = LabelledView(folder, ["Red", "Blue"], values, 8, report=lambda _: None)
    pixels, attributes = view[3]
    assert (pixels.shape, pixels.dtype) == ((3, 8, 8), torch.uint8)
    assert (attributes.tolist(), attributes.dtype) == ([-1, 1], torch.int8)
    batches = list(view.batches(4))
    reds = torch.cat([pixels for pixels, _ in batches])[:, 0, 0, 0].div(20, rounding_mode="floor")
    labels = torch.cat([labels for _, labels in batches])
    assert reds.tolist() == [0, 1, 3, 4, 5, 6]
    assert labels.tolist() == values[reds.numpy()].tolist()
    assert (len(view), view.attributes) == (COUNT, ("Red", "Blue"))


def test_faces_are_cut_from_the_middle_and_scaled(folder: ImageFolder) -> None:
    values = np.ones((COUNT, 1), np.int8)
    assert LabelledView(folder, ["Face"], values, Cover(8, centre=16))[0][0].shape == (3, 8, 8)


def test_digits_are_grey_if_asked_and_exact() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    digits = IdxImages(pixels, np.array([1, 0, 2, 1], np.uint8), (Path("train-images-idx3-ubyte"),))
    names, values = digits.attributes()
    view = LabelledView(digits, names, values, 28, channels=1)
    images, labels = next(view.batches(4))
    np.testing.assert_array_equal(images[:, 0].numpy(), pixels)
    assert labels.argmax(1).tolist() == [1, 0, 2, 1]
    assert LabelledView(digits, names, values, 32)[0][0].shape == (3, 32, 32)


def test_labels_that_do_not_match_are_refused(folder: ImageFolder) -> None:
    with pytest.raises(DataError, match=r"labels are int8 \(6, 1\); 7 images with 1 attributes need int8 \(7, 1\)"):
        LabelledView(folder, ["Red"], np.ones((6, 1), np.int8), 8)
    with pytest.raises(DataError, match="other numbers than -1 and 1"):
        LabelledView(folder, ["Red"], np.zeros((7, 1), np.int8), 8)
    with pytest.raises(DataError, match="no image to look at"):
        View(Subset(folder, ()), Cover(8))
