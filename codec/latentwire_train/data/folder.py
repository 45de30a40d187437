# SPDX-License-Identifier: Apache-2.0
"""A folder of images -> the usable images with their sizes, and the problems by name.

    scan_folder ──┐                                  ┌─> SampleStream (stream.py): endless shuffled training samples
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
from latentwire_core.folders import find_files
from latentwire_core.formats import IMAGE_SUFFIXES

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
    """An image file: its path relative to the root, with `/`, and its size in pixels before the EXIF orientation."""

    path: str
    width: int
    height: int


@dataclass(frozen=True)
class ImageFolder:
    """The usable images of a folder, an `ImageSource`.

    Attributes:
        root: the folder that the paths are relative to.
        items: the images, in the order of their paths.
        problems: the files that were skipped.
        limits: the largest image that `read` decodes.
        left_out: numbers and reasons of what was passed over; empty: there is none.
    """

    root: Path
    items: tuple[ImageItem, ...]
    problems: tuple[Problem, ...] = ()
    limits: ImageLimits = DATA_LIMITS
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """Map an index to the path relative to the root."""
        return self.items[index].path

    def read(self, index: int) -> Pixels:
        """Map an index to uint8 (H,W,3) RGB, upright, opaque and in sRGB.

        Raises:
            ImageError: the file is damaged, or larger than `limits`.
            OSError: the file cannot be read.
        """
        return read_image((self.root / self.items[index].path).read_bytes(), self.limits)


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


def scan_folder(root: Path, *, min_side: int = 1, limits: ImageLimits = DATA_LIMITS) -> ImageFolder:
    """Map a folder, nested to any depth, to its usable images, with their sizes from the headers.

    Hidden files and folders (`.name`) and files without an image suffix are counted. Links are followed, each folder
    once. Skipped and reported by name are unreadable files and folders, files that are no image, images with a side
    below `min_side` pixels and images over `limits`.

    Raises:
        DataError: `root` is not a folder, or no image in it can be used.
        ValueError: `min_side` is below 1.
    """
    if min_side < 1:
        raise ValueError(f"min_side is {min_side}; it must be >= 1")
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give one that holds images")
    items: list[ImageItem] = []
    problems: list[Problem] = []
    there = find_files(root, IMAGE_SUFFIXES)
    problems += [Problem(path.as_posix(), f"cannot be listed: {why}") for path, why in there.unlistable.items()]
    for path in sorted(path.as_posix() for path in there.files):
        try:
            size = open_image((root / path).read_bytes(), _ANY_SIZE).size
            reason = _refusal(*size, min_side, limits)
        except (CodecError, OSError) as error:
            reason = f"cannot be read: {explain(error)}"
        if reason:
            problems.append(Problem(path, reason))
        else:
            items.append(ImageItem(path, *size))
    if not items:
        found = f"{len(problems)} problems: {describe(problems)}" if problems else "it holds no image file"
        raise DataError(f"{root} has no usable image ({found}); give a folder with images of at least {min_side} px")
    return ImageFolder(root, tuple(items), tuple(problems), limits, there.left_out)


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
