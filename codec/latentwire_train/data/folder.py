# SPDX-License-Identifier: Apache-2.0
"""A source of images -> the usable images with their sizes, and the problems by name.

    scan_images ──┐                                  ┌─> SampleStream (stream.py): endless shuffled training samples
    scan_celeba ──┼─ source.py ──> ImageSource ──────┤
    scan_idx    ──┘                  └ ImageCache    └─> View (views.py): every image once, in order

Scanning decodes no pixels and never stops at one bad file: a file that cannot be used becomes a `Problem`, and a set
is refused only if no image is left. `views.py` says what happens where decoding finds damage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from latentwire_codec.images.files import ImageLimits, open_image, read_image
from latentwire_codec.images.geometry import Pixels
from latentwire_core.errors import CodecError, DataError
from latentwire_data.item import Item
from latentwire_data.source import Source, open_source

# Wider than a server's limits, since these files are the user's own, but below 89 million pixels, where Pillow warns.
DATA_LIMITS = ImageLimits(max_side=32_768, max_pixels=80_000_000)
"""The largest image that is decoded for training."""
_ANY_SIZE = ImageLimits(max_side=2**31, max_pixels=2**62)


@dataclass(frozen=True)
class Problem:
    """A file or row that was skipped."""

    name: str  # the file's path relative to the data's root, or the label file and its line
    reason: str  # the fault, with the value and the limit

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def describe(problems: Sequence[Problem], limit: int = 5) -> str:
    """Map problems to one line with the first `limit` of them and the number of the others; no problem to no text."""
    shown = "; ".join(str(problem) for problem in problems[:limit])
    return f"{shown}; and {len(problems) - limit} more" if len(problems) > limit else shown


class ImageSource(Protocol):
    """Images by index: 0 <= index < len."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Map an index to the name of the image in messages, unique within the source."""

    def read(self, index: int) -> Pixels:
        """Map an index to uint8 (H,W,3) RGB.

        Raises:
            ImageError: the file is damaged.
            OSError: the file cannot be read.
        """


class ImageItem(NamedTuple):
    """An image of a source, and its size in pixels before the EXIF orientation."""

    origin: Item
    width: int
    height: int

    @property
    def path(self) -> str:
        """Its key; in a folder its path below the folder, with `/`."""
        return self.origin.key


@dataclass(frozen=True)
class ImageFolder:
    """The usable images of a source, an `ImageSource`.

    Attributes:
        source: where their bytes are.
        items: the images, in the order of their paths.
        problems: the files that were skipped.
        limits: the largest image that `read` decodes.
        left_out: numbers and reasons of what was passed over; empty: there is none.
    """

    source: Source
    items: tuple[ImageItem, ...]
    problems: tuple[Problem, ...] = ()
    limits: ImageLimits = DATA_LIMITS
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """Map an index to the key of the image."""
        return self.items[index].path

    def read(self, index: int) -> Pixels:
        """Map an index to uint8 (H,W,3) RGB, upright, opaque and in sRGB.

        Raises:
            ImageError: the file is damaged, or larger than `limits`.
            OSError: the file cannot be read.
        """
        return read_image(self.read_file(index), self.limits)

    def read_file(self, index: int) -> bytes:
        """Map an index to the bytes of the image file; raises OSError."""
        return self.source.read(self.items[index].origin)


@dataclass(frozen=True)
class Subset:
    """Some images of a source, an `ImageSource` itself: image k is image `indices[k]` of the source."""

    source: ImageSource
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        """Map an index to the source's name of the image."""
        return self.source.name(self.indices[index])

    def read(self, index: int) -> Pixels:
        """Map an index to uint8 (H,W,3) RGB; raise what the source raises."""
        return self.source.read(self.indices[index])


def scan_images(location: str | Path, *, min_side: int = 1, limits: ImageLimits = DATA_LIMITS) -> ImageFolder:
    """Map a folder, shards, a dataset, a list or a URL to its usable images, with their sizes from the headers.

    `latentwire_data.source` says what each kind holds, and what of it is passed over. Skipped and reported by name are
    unreadable files and folders, files that are no image, images with a side below `min_side` pixels and images over
    `limits`.

    Raises:
        DataError: there is nothing at the location, it cannot be read, or no image in it can be used.
        ValueError: `min_side` is below 1.
    """
    if min_side < 1:
        raise ValueError(f"min_side is {min_side}; it must be >= 1")
    source = open_source(str(location), caption_suffixes=())
    items: list[ImageItem] = []
    problems: list[Problem] = []
    for item in source.items():
        try:
            size = open_image(source.read(item), _ANY_SIZE).size
            reason = _refusal(*size, min_side, limits)
        except (CodecError, OSError) as error:
            reason = f"cannot be read: {explain(error)}"
        if reason:
            problems.append(Problem(item.key, reason))
        else:
            items.append(ImageItem(item, *size))
    problems = [*(Problem(name, why) for name, why in source.problems.items()), *problems]
    if not items:
        found = f"{len(problems)} problems: {describe(problems)}" if problems else "it holds no image file"
        raise DataError(f"{location} has no usable image ({found}); give images of at least {min_side} px")
    return ImageFolder(source, tuple(items), tuple(problems), limits, source.left_out)


def explain(error: Exception) -> str:
    """Map an exception to its text in one line, without the path, which the caller names."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _refusal(width: int, height: int, min_side: int, limits: ImageLimits) -> str:
    """Map a size in pixels to the reason why it cannot be used; empty: it can."""
    if min(width, height) < min_side:
        return f"is {width}x{height}; each side must be at least {min_side} px"
    if max(width, height) > limits.max_side:
        return f"is {width}x{height}; each side must be at most {limits.max_side} px"
    if width * height > limits.max_pixels:
        return f"is {width}x{height}, {width * height} pixels; at most {limits.max_pixels} are decoded"
    return ""
