# SPDX-License-Identifier: Apache-2.0
"""A folder in one of several layouts -> the images to train on, and the held-out images.

    folder   image files, nested to any depth
    celeba   CelebA's layout; with a partition file, its validation set is held out and its test set left alone
    idx      IDX files, as of MNIST

Without a partition file, a hash of each image's name decides which images are held out. Training uses no labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentwire_train.config import DataConfig, FramingName, LayoutName
from latentwire_train.data.celeba import IMAGES, scan_celeba
from latentwire_train.data.crops import CentreCrop, Cover, Framing, RandomCrop
from latentwire_train.data.folder import DataError, ImageSource, Problem, Subset, scan_folder
from latentwire_train.data.idx import scan_idx
from latentwire_train.data.manifest import manifest_digest
from latentwire_train.data.split import split_by_hash


@dataclass(frozen=True)
class DataSet:
    """The images that a layout's reader finds.

    Attributes:
        images: the usable images.
        problems: the files that were skipped.
        digest: digest of the files with usable images (`manifest.py`).
        parts: indices to train on and held-out indices, where the data set itself says so; None splits by hash.
    """

    images: ImageSource
    problems: tuple[Problem, ...]
    digest: str
    parts: tuple[Sequence[int], Sequence[int]] | None = None


@dataclass(frozen=True)
class Layout:
    """One way in which a data set may lie on disk.

    Attributes:
        fits: tells whether a folder looks like this layout.
        read: maps a folder and the least side of an image, pixels, to the data set; raises DataError.
    """

    fits: Callable[[Path], bool]
    read: Callable[[Path, int], DataSet]


def _read_celeba(root: Path, min_side: int) -> DataSet:
    found = scan_celeba(root, min_side=min_side)
    digest = manifest_digest(found.images.root, (item.path for item in found.images.items))
    parts = None if found.partition is None else (found.indices("train"), found.indices("validation"))
    return DataSet(found, found.problems, digest, parts)


def _read_idx(root: Path, min_side: int) -> DataSet:
    found = scan_idx(root)
    return DataSet(found, found.problems, manifest_digest(root, (path.name for path in found.files)))


def _read_folder(root: Path, min_side: int) -> DataSet:
    found = scan_folder(root, min_side=min_side)
    return DataSet(found, found.problems, manifest_digest(root, (item.path for item in found.items)))


LAYOUTS = {
    LayoutName.CELEBA: Layout(lambda root: (root / IMAGES).is_dir(), _read_celeba),
    LayoutName.IDX: Layout(lambda root: any(root.glob("train-images?idx3-ubyte*")), _read_idx),
    LayoutName.FOLDER: Layout(lambda root: True, _read_folder),
}
"""The known layouts; `auto` takes the first that fits."""


@dataclass(frozen=True)
class TrainingData:
    """The images of a run.

    Attributes:
        name: name of the folder.
        train: the images to train on.
        held_out: the images to measure on, at most `held_out_images`.
        problems: the files that were skipped.
        digest: digest of the files with usable images (`manifest.py`), 64 hex digits.
    """

    name: str
    train: ImageSource
    held_out: ImageSource
    problems: tuple[Problem, ...]
    digest: str


def training_framing(config: DataConfig) -> Framing:
    """Map a configuration to the framing of training samples."""
    if config.framing is FramingName.COVER:
        return Cover(config.size, mirror_share=config.mirror_share)
    return RandomCrop(config.size, config.scaled_share, config.max_scale, config.mirror_share)


def measuring_framing(config: DataConfig) -> Framing:
    """Map a configuration to the framing of held-out images, which is the same each time."""
    return Cover(config.size) if config.framing is FramingName.COVER else CentreCrop(config.size)


def open_data(root: Path, config: DataConfig) -> TrainingData:
    """Map a folder to the images of a run; every file is read once, for the digest.

    Args:
        root: the folder.
        config: its layout, and how much is held out.

    Raises:
        DataError: the layout's reader refuses the folder, or it has fewer than two images.
    """
    name = config.layout
    if name is LayoutName.AUTO:
        name = next(name for name, layout in LAYOUTS.items() if layout.fits(root))
    found = LAYOUTS[name].read(root, training_framing(config).min_side)
    names = (found.images.name(index) for index in range(len(found.images)))
    train, held_out = found.parts or split_by_hash(list(names), config.held_out_share)
    if not train or not held_out:
        raise DataError(
            f"{root} has {len(train)} images to train on and {len(held_out)} to measure on; give one of each"
        )
    return TrainingData(
        name=root.resolve().name,
        train=Subset(found.images, tuple(train)),
        held_out=Subset(found.images, tuple(held_out[: config.held_out_images])),
        problems=found.problems,
        digest=found.digest,
    )
