# SPDX-License-Identifier: Apache-2.0
"""Images in one of several layouts -> the images to train on, and the held-out images.

    folder   image files, nested to any depth; and what else `latentwire_data.source` reads
    celeba   CelebA's layout; with a partition file, its validation set is held out and its test set left alone
    idx      IDX files, as of MNIST

Without a partition file, a hash of each image's name decides which images are held out. Training uses no labels.
"""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from latentwire_core.errors import DataError
from latentwire_train.config import DataConfig, FramingName, LayoutName
from latentwire_train.data.celeba import IMAGES, LabelledFolder, scan_celeba
from latentwire_train.data.crops import CentreCrop, Cover, Framing, RandomCrop
from latentwire_train.data.folder import ImageFolder, ImageSource, Problem, Subset, scan_images
from latentwire_train.data.idx import IdxImages, scan_idx
from latentwire_train.data.manifest import manifest_digest
from latentwire_train.data.split import split_by_hash


@dataclass(frozen=True)
class TrainingData:
    """The images of a run."""

    name: str  # name of the folder, or of the file
    train: ImageSource  # the images to train on
    held_out: ImageSource  # the images to measure on, at most `held_out_images`
    problems: tuple[Problem, ...]  # the files that were skipped
    left_out: str  # numbers and reasons of what else is there; empty: there is nothing
    digest: str  # digest of the files with usable images (`manifest.py`), 64 hex digits


def training_framing(config: DataConfig) -> Framing:
    """Map a configuration to the framing of training samples."""
    if config.framing is FramingName.COVER:
        return Cover(config.size, mirror_share=config.mirror_share)
    return RandomCrop(config.size, config.scaled_share, config.max_scale, config.mirror_share)


def measuring_framing(config: DataConfig) -> Framing:
    """Map a configuration to the framing of held-out images, which is the same each time."""
    return Cover(config.size) if config.framing is FramingName.COVER else CentreCrop(config.size)


def open_data(location: str | Path, config: DataConfig) -> TrainingData:
    """Map a path or a URL to the images of a run; every file is read once, for the digest.

    Raises:
        DataError: the layout's reader refuses what is there, or it has fewer than two images.
    """
    images = _scan(location, config.layout, training_framing(config).min_side)
    if isinstance(images, IdxImages):
        digest = manifest_digest({path.name: path.read_bytes for path in images.files})
    else:
        names = map(images.name, range(len(images)))
        digest = manifest_digest({name: partial(images.read_file, index) for index, name in enumerate(names)})
    if isinstance(images, LabelledFolder) and images.partition is not None:
        train, held_out = images.indices("train"), images.indices("validation")
    else:
        train, held_out = split_by_hash([images.name(index) for index in range(len(images))], config.held_out_share)
    if not train or not held_out:
        raise DataError(
            f"{location} has {len(train)} images to train on and {len(held_out)} to measure on; give one of each"
        )
    return TrainingData(
        name=os.path.basename(os.path.abspath(location)),
        train=Subset(images, tuple(train)),
        held_out=Subset(images, tuple(held_out[: config.held_out_images])),
        problems=images.problems,
        left_out=images.left_out if isinstance(images, ImageFolder) else "",
        digest=digest,
    )


def _scan(location: str | Path, layout: LayoutName, min_side: int) -> ImageFolder | IdxImages:
    """Map a path or a URL to its images; the layout `auto` is the first that it looks like."""
    auto, root = layout is LayoutName.AUTO, Path(location)
    if layout is LayoutName.CELEBA or (auto and (root / IMAGES).is_dir()):
        return scan_celeba(root, min_side=min_side)
    if layout is LayoutName.IDX or (auto and any(root.glob("train-images?idx3-ubyte*"))):
        return scan_idx(root)
    return scan_images(location, min_side=min_side)
