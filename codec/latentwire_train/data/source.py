# SPDX-License-Identifier: Apache-2.0
"""A folder of images, in CelebA's layout or of IDX files, or a pack of images -> those to train on and those held out.

Where CelebA's partition file lies beside the labels, its validation set is held out and its test set left alone;
elsewhere a hash of each name decides. The labels play no part.
"""

from dataclasses import dataclass
from pathlib import Path

from latentwire_train.config import DataConfig, FramingName, Layout
from latentwire_train.data.crops import CentreCrop, Cover, Framing, RandomCrop
from latentwire_train.data.folder import DataError, ImageFolder, ImageSource, Problem, Subset, scan_folder
from latentwire_train.data.idx import IdxImages, scan_idx
from latentwire_train.data.labels import IMAGES, LabelledFolder, scan_celeba
from latentwire_train.data.manifest import build_manifest
from latentwire_train.data.pack import PackedImages, open_pack
from latentwire_train.data.split import split_by_hash


@dataclass(frozen=True)
class TrainingData:
    """The images of a run.

    Attributes:
        name: of the folder.
        train: to train on.
        held_out: to measure on, at most `held_out_images`.
        problems: what was skipped, by name.
        digest: of the manifest (`manifest.py`) of the files with usable images, of a pack's originals; 64 hex digits.
    """

    name: str
    train: ImageSource
    held_out: ImageSource
    problems: tuple[Problem, ...]
    digest: str


def training_framing(config: DataConfig) -> Framing:
    """Map a configuration to what cuts the samples."""
    if config.framing is FramingName.COVER:
        return Cover(config.size, mirror_share=config.mirror_share)
    return RandomCrop(config.size, config.scaled_share, config.max_scale, config.mirror_share)


def measuring_framing(config: DataConfig) -> Framing:
    """Map a configuration to what cuts the held-out images: always the same of each."""
    return Cover(config.size, mirror_share=0.0) if config.framing is FramingName.COVER else CentreCrop(config.size)


def open_data(root: Path, config: DataConfig) -> TrainingData:
    """Map a folder or a pack to the images of a run; every file is read once, for the digest.

    Args:
        root: a folder, or a file that `pack.py` wrote.
        config: its layout, and how much is held out.

    Raises:
        DataError: what the readers of `data.py`, `labels.py`, `idx.py` and `pack.py` refuse; fewer than two images.
    """
    # Nothing is scaled up for a crop; what is scaled as a whole may have any size.
    min_side = config.size if config.framing is FramingName.CROP else 1
    if root.is_file():
        packed, problems = open_pack(root, min_side=min_side)
        return _split(root, config, packed, problems, packed.source_digest)
    source = _scan(root, config.layout, min_side)
    if isinstance(source, IdxImages):
        manifest = build_manifest(root, [path.relative_to(root).as_posix() for path in source.files])
    else:
        images = source.images if isinstance(source, LabelledFolder) else source
        manifest = build_manifest(images.root, [item.path for item in images.items])
    return _split(root, config, source, source.problems, manifest.digest)


def _split(
    root: Path,
    config: DataConfig,
    source: ImageFolder | LabelledFolder | IdxImages | PackedImages,
    problems: tuple[Problem, ...],
    digest: str,
) -> TrainingData:
    if isinstance(source, LabelledFolder) and source.partition is not None:
        train, held_out = source.indices("train"), source.indices("validation")
    else:
        names = [source.name(index) for index in range(len(source))]
        train, held_out = split_by_hash(names, config.held_out_share)
    if not train or not held_out:
        raise DataError(
            f"{root} has {len(train)} images to train on and {len(held_out)} to measure on; give one of each"
        )
    return TrainingData(
        name=root.resolve().name,
        train=Subset(source, tuple(train)),
        held_out=Subset(source, tuple(held_out[: config.held_out_images])),
        problems=problems,
        digest=digest,
    )


def _scan(root: Path, layout: Layout, min_side: int) -> ImageFolder | LabelledFolder | IdxImages:
    layout = _find_layout(root) if layout is Layout.AUTO else layout
    if layout is Layout.CELEBA:
        return scan_celeba(root, min_side=min_side)
    if layout is Layout.IDX:
        return scan_idx(root)
    return scan_folder(root, min_side=min_side)


def _find_layout(root: Path) -> Layout:
    if (root / IMAGES).is_dir():
        return Layout.CELEBA
    if any(root.glob("train-images?idx3-ubyte*")):
        return Layout.IDX
    return Layout.FOLDER
