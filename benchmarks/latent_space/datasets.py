# SPDX-License-Identifier: Apache-2.0
"""A folder to work in -> the images that models are trained on, and test images that they never see.

Faces are drawn as `latentwire draw-faces` does it; the digits are scikit-learn's, 8x8 pixels, written by 13 people.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from latentwire_codec.images.geometry import resize_to_cover
from latentwire_lab.faces.folder import Progress, write_folder
from latentwire_train.data.celeba import scan_celeba
from latentwire_train.data.idx import scan_idx

Pixels = npt.NDArray[np.uint8]
Labels = Mapping[str, npt.NDArray[np.int8]]

FACE_SIDE, DIGIT_SIDE = 64, 32
TEST_SHARE = 6
"""One in so many digits is a test image; the last digits are."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of one kind.

    Attributes:
        name: name in figures and tables.
        folder: the folder for `latentwire train`.
        train: uint8 (N,S,S,3), the training images and the images that choose the best weights.
        test: uint8 (M,S,S,3), images that no model has seen.
        train_labels: attribute -> (N,), 1 or -1.
        test_labels: attribute -> (M,), 1 or -1.
    """

    name: str
    folder: Path
    train: Pixels
    test: Pixels
    train_labels: Labels
    test_labels: Labels

    @property
    def side(self) -> int:
        """The side of the images, pixels."""
        return int(self.train.shape[1])


def drawn_faces(folder: Path, count: int, progress: Progress) -> Dataset:
    """Draw faces into a folder, or read them from there; faces are drawn by their labels, so the labels are true."""
    write_folder(folder, count, FACE_SIDE, progress=progress)
    labelled = scan_celeba(folder)
    parts = {
        part: [index for name in names for index in labelled.indices(name)]
        for part, names in {"train": ("train", "validation"), "test": ("test",)}.items()
    }
    images = {part: np.stack([labelled.read(index) for index in indices]) for part, indices in parts.items()}
    labels = {
        part: {name: labelled.values[indices, column] for column, name in enumerate(labelled.attributes)}
        for part, indices in parts.items()
    }
    return Dataset("drawn faces", folder, images["train"], images["test"], labels["train"], labels["test"])


def written_digits(folder: Path, count: int) -> Dataset:
    """Write scikit-learn's first digits as IDX files, named as MNIST's are."""
    digits = load_digits()
    pixels = (digits.images[:count] * (255 / 16)).round().astype(np.uint8)
    labels = digits.target[:count].astype(np.uint8)
    tests = len(pixels) // TEST_SHARE
    folder.mkdir(parents=True, exist_ok=True)
    for split, part in {"train": slice(None, -tests), "t10k": slice(-tests, None)}.items():
        _write_idx(folder / f"{split}-images-idx3-ubyte", pixels[part])
        _write_idx(folder / f"{split}-labels-idx1-ubyte", labels[part])
    parts = [scan_idx(folder, split) for split in ("train", "t10k")]
    train, test = (
        np.stack([resize_to_cover(part.read(index), DIGIT_SIDE, DIGIT_SIDE) for index in range(len(part))])
        for part in parts
    )
    named = [part.attributes([str(digit) for digit in range(10)]) for part in parts]
    train_labels, test_labels = (dict(zip(names, values.T, strict=True)) for names, values in named)
    return Dataset("handwritten digits", folder, train, test, train_labels, test_labels)


def _write_idx(path: Path, values: Pixels) -> None:
    """Write an IDX file; `latentwire_train.data.idx` states the format."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(side.to_bytes(4, "big") for side in values.shape)
    path.write_bytes(header + values.tobytes())
