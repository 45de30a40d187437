# SPDX-License-Identifier: Apache-2.0
"""Minutes -> the amount of training; a folder to work in -> images to train on, and test images that no model sees.

Faces are drawn as `latentwire draw-faces` does it; the digits are scikit-learn's, 8x8 pixels, written by 13 people.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from latentwire_codec.images.geometry import resize_to_cover
from latentwire_lab.faces.folder import Progress, write_folder
from latentwire_train.data.celeba import scan_celeba
from latentwire_train.data.idx import scan_idx

DEFAULT_MINUTES = 20.0  # the duration of the default plan on two cores of an ordinary processor without AVX-512
Pixels = npt.NDArray[np.uint8]
Labels = Mapping[str, npt.NDArray[np.int8]]
FACE_SIDE, DIGIT_SIDE = 64, 32
TEST_SHARE = 6  # one in so many digits is a test image; the last digits are


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    # number of drawn faces; of ten faces, eight are for training, one for choosing weights, one for measuring
    faces: int = 6000
    digits: int = 1797  # number of scikit-learn's 1797 digits; of six digits, five are for training, one for measuring
    face_steps: int = 2000  # steps of training for each of the two models of faces
    digit_steps: int = 600  # steps of training for each model of digits
    batch_size: int = 32  # number of images of a step
    pairs: int = 100  # number of pairs of test images to interpolate between
    samples: int = 400  # number of samples of a prior to measure
    stepped: int = 100  # number of test images to step away from in latent space
    # weights of the KL divergence to try on digits, per value of an image
    weights: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    photographs: int = 4  # number of scikit-image's photographs for the spatial latents

    def lasting(self, minutes: float) -> "Plan":
        """Return the plan with the steps of training that fit into another time than `DEFAULT_MINUTES`.

        Raises:
            ValueError: the time is not above 0.
        """
        if not minutes > 0:
            raise ValueError(f"the plan shall take {minutes} minutes; it must be above 0")
        share = minutes / DEFAULT_MINUTES
        return replace(
            self, face_steps=max(1, round(self.face_steps * share)), digit_steps=max(1, round(self.digit_steps * share))
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of one kind."""

    name: str  # name in figures and tables
    folder: Path  # the folder for `latentwire train`
    train: Pixels  # uint8 (N,S,S,3), the training images and the images that choose the best weights
    test: Pixels  # uint8 (M,S,S,3), images that no model has seen
    train_labels: Labels  # attribute -> (N,), 1 or -1
    test_labels: Labels  # attribute -> (M,), 1 or -1

    @property
    def side(self) -> int:
        """The side of the images, pixels."""
        return int(self.train.shape[1])


def drawn_faces(folder: Path, count: int, progress: Progress) -> Dataset:
    """Draw faces into a folder, or read them from there; faces are drawn by their labels, so the labels are true."""
    write_folder(folder, count, FACE_SIDE, progress=progress)
    labelled = scan_celeba(folder)
    parts = [
        [index for name in names for index in labelled.indices(name)] for names in (("train", "validation"), ("test",))
    ]
    train, test = (np.stack([labelled.read(index) for index in indices]) for indices in parts)
    labels = [dict(zip(labelled.attributes, labelled.values[indices].T, strict=True)) for indices in parts]
    return Dataset("drawn faces", folder, train, test, labels[0], labels[1])


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
    labels = [dict(zip(names, values.T, strict=True)) for names, values in named]
    return Dataset("handwritten digits", folder, train, test, labels[0], labels[1])


def _write_idx(path: Path, values: Pixels) -> None:
    """Write an IDX file; `latentwire_train.data.idx` states the format."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(side.to_bytes(4, "big") for side in values.shape)
    path.write_bytes(header + values.tobytes())
