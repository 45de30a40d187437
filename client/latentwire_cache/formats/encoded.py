# SPDX-License-Identifier: Apache-2.0
"""What goes into a trainer's files, and what a format is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from latentwire_cache.buckets.frame import Frame

Array = npt.NDArray[np.floating[Any]]
File = tuple[str, bytes]
"""A path relative to the cache's folder, with `/` between its parts, and the whole bytes of the file."""
Note = Any
"""What the files that are made once at the end need to know of a shard: any JSON value."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """One image that was encoded.

    Attributes:
        key: unique in its source, with the file's suffix: `folder/photo.jpg`.
        source_path: the path or URL of the image.
        frame: how the image became pixels.
        mean: float32 (C,h,w), raw.
        logvar: like `mean`; None for a VAE without log-variance.
        sample: like `mean`; None where no sample was asked for.
        flipped: the horizontally flipped image.
        alpha_mask: float32 (H,W) of the bucket, 0..1, 1 is opaque.
        caption: the image's caption.
        label: the image's class.
    """

    key: str
    source_path: str | None
    frame: Frame
    mean: Array
    logvar: Array | None = None
    sample: Array | None = None
    flipped: "Encoded | None" = None
    alpha_mask: Array | None = None
    caption: str | None = None
    label: int | None = None


@dataclass(frozen=True)
class Space:
    """The latent space of a cache, and the dtype of its files.

    Attributes:
        scale: 1 or C numbers: scaled = (raw - shift) * scale.
        shift: 1 or C numbers.
        latent_space: the name of the space; empty: unnamed.
        weights_digest: SHA-256 of the weights.
        dtype: `float32`, `float16` or `bfloat16`, for trainers that store what their VAE computes in.
    """

    scale: tuple[float, ...]
    shift: tuple[float, ...]
    latent_space: str
    weights_digest: str
    dtype: str


class Format(Protocol):
    """The files of a trainer. All functions depend on their arguments alone, to the byte."""

    @property
    def name(self) -> str:
        """A key of `FORMATS`."""
        ...

    @property
    def rule(self) -> str:
        """The name of the trainer's size rule."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What the files hold, of `mode`, `sample` and `moments`; `flip` and `label` where each image needs one."""
        ...

    @property
    def per_item(self) -> bool:
        """Whether each image has files of its own."""
        ...

    def paths(self, key: str, frame: Frame) -> tuple[str, ...]:
        """Return the paths of an image's own files; none where the files hold many images."""
        ...

    def files(self, items: Sequence[Encoded], space: Space, shard: int) -> Iterator[File]:
        """Yield the files of a shard's images.

        Raises:
            ValueError: an image lacks what the trainer needs, does not fit it, or two images would have one file.
        """
        ...

    def note(self, items: Sequence[Encoded], space: Space, shard: int) -> Note:
        """Return what `index` needs to know of a shard: a JSON value."""
        ...

    def index(self, notes: Sequence[Note]) -> Iterator[File]:
        """Yield the files that are made once, from the notes of all shards in order.

        Raises:
            ValueError: two images of different shards would have one file.
        """
        ...


class NoIndex:
    """The part of a format that makes no file at the end."""

    def note(self, items: Sequence[Encoded], space: Space, shard: int) -> Note:
        """Return None."""
        return None

    def index(self, notes: Sequence[Note]) -> Iterator[File]:
        """Yield no file."""
        return iter(())


class Shards:
    """The part of a format whose files hold many images."""

    per_item = False

    def paths(self, key: str, frame: Frame) -> tuple[str, ...]:
        """Return no path."""
        return ()


def drawn(item: Encoded) -> Array:
    """Return the sample of an image, or where none was asked for, the mode; raw float32 (C,h,w)."""
    return item.mean if item.sample is None else item.sample


def scaled(raw: Array, space: Space) -> npt.NDArray[np.float32]:
    """Map raw latents (C,h,w) to scaled ones, float32."""
    scale, shift = (np.array(numbers, np.float64).reshape(-1, 1, 1) for numbers in (space.scale, space.shift))
    return ((raw.astype(np.float64) - shift) * scale).astype(np.float32)


def mean_and_std(item: Encoded, name: str) -> npt.NDArray[np.float32]:
    """Return the mean, and behind it the standard deviation, float32 (2C,h,w); raises ValueError without logvar."""
    if item.logvar is None:
        raise ValueError(f"{item.key} has no log-variance, which {name} needs; encode with a VAE that has one")
    return np.concatenate([item.mean, np.exp(item.logvar / 2)]).astype(np.float32)


def label_of(item: Encoded, name: str) -> int:
    """Return the class of an image; raises ValueError where it has none."""
    if item.label is None:
        raise ValueError(f"{item.key} has no label, which {name} needs; give each class a folder of its own")
    return item.label


def same_shape(items: Sequence[Encoded], name: str) -> None:
    """Raise ValueError where the latents of a shard differ in shape."""
    for item in items:
        if item.mean.shape != items[0].mean.shape:
            raise ValueError(
                f"{name} needs latents of one shape; {items[0].key} has {items[0].mean.shape}, {item.key} has "
                f"{item.mean.shape}"
            )


def distinct(files: Iterator[tuple[str, File]]) -> Iterator[File]:
    """Yield the files of images; raises ValueError, naming both images, where two have one path.

    Args:
        files: the key of the image, and its file.
    """
    owners: dict[str, str] = {}
    for key, file in files:
        owner = owners.setdefault(file[0], key)
        if owner != key:
            raise ValueError(f"{owner} and {key} would both be written to {file[0]}; rename one of them")
        yield file
