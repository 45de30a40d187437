# SPDX-License-Identifier: Apache-2.0
"""A folder of images -> the usable ones with their sizes, and the problems by name.

    scan_folder ──┐
    scan_celeba ──┤ (labels.py)                       ┌─> SampleStream (stream.py): endless shuffled training samples
    scan_idx    ──┼─────────────> ImageSource ────────┤
    open_pack   ──┘ (idx.py, pack.py)   └ ImageCache  └─> View, LabelledView (views.py): every image once, in order

Scanning reads headers only and never stops at one bad file: what cannot be used becomes a `Problem` with the file's
name, and only a set of which nothing is left is refused. What a header does not tell (a truncated file, damaged
pixels) is found while decoding; `loading.py` says what happens then.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from PIL import Image, UnidentifiedImageError

from latentwire_codec.images.files import READABLE_FORMATS, ImageLimits, read_image
from latentwire_codec.images.geometry import Pixels
from latentwire_core.errors import CodecError
from latentwire_core.formats import IMAGE_SUFFIXES

# Wider than a server's limits, since these files are the user's own, but below 89 million pixels, where Pillow warns.
DATA_LIMITS = ImageLimits(max_side=32_768, max_pixels=80_000_000)
"""The largest image that is decoded for training."""

Progress = Callable[[int, int], None]
"""Called with (done, total) in files, at most once per file and with done = total at the end."""


class DataError(CodecError):
    """The data cannot be used for training: nothing usable, labels that do not match, or too much that is damaged."""


@dataclass(frozen=True)
class Problem:
    """One thing that was skipped.

    Attributes:
        name: the file's path relative to the data's root, or the label file and its line.
        reason: what is wrong with it, with the value and the limit.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def describe(problems: Sequence[Problem], limit: int = 5) -> str:
    """Problems -> the first `limit` of them in one line, and how many more there are; empty for none."""
    shown = "; ".join(str(problem) for problem in problems[:limit])
    return f"{shown}; and {len(problems) - limit} more" if len(problems) > limit else shown


class ImageSource(Protocol):
    """Images by index: 0 <= index < len."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """An index -> what a message calls the image, unique within the source."""

    def read(self, index: int) -> Pixels:
        """An index -> uint8 (H,W,3) RGB.

        Raises:
            ImageError: the file is damaged.
            OSError: the file cannot be read.
        """


@dataclass(frozen=True)
class ImageItem:
    """An image file whose header could be read.

    Attributes:
        path: relative to the root, with `/`.
        width: in pixels, as stored (before the EXIF orientation is applied).
        height: likewise.
    """

    path: str
    width: int
    height: int


@dataclass(frozen=True)
class ImageFolder:
    """The usable images of a folder, an `ImageSource`.

    Attributes:
        root: what the paths are relative to.
        items: in the order of their paths.
        problems: what was skipped, by name.
        limits: the largest image that `read` decodes.
    """

    root: Path
    items: tuple[ImageItem, ...]
    problems: tuple[Problem, ...] = ()
    limits: ImageLimits = DATA_LIMITS

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """An index -> the path relative to the root."""
        return self.items[index].path

    def read(self, index: int) -> Pixels:
        """An index -> uint8 (H,W,3) RGB, upright, opaque and in sRGB.

        Raises:
            ImageError: the file is damaged, or larger than `limits`.
            OSError: the file cannot be read.
        """
        return read_image((self.root / self.items[index].path).read_bytes(), self.limits)


@dataclass(frozen=True)
class Subset:
    """Some images of a source, an `ImageSource` itself.

    Attributes:
        source: where they come from.
        indices: into `source`; number k of the subset is `source`'s `indices[k]`.
    """

    source: ImageSource
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        """An index into the subset -> the source's name of it."""
        return self.source.name(self.indices[index])

    def read(self, index: int) -> Pixels:
        """An index into the subset -> uint8 (H,W,3) RGB; raises what the source raises."""
        return self.source.read(self.indices[index])


def scan_folder(
    root: Path,
    *,
    min_side: int = 1,
    limits: ImageLimits = DATA_LIMITS,
    progress: Progress | None = None,
) -> ImageFolder:
    """A folder, nested to any depth -> its usable images, their sizes taken from the headers.

    Hidden files and folders (`.name`) and files without an image suffix are passed over in silence. Links are
    followed, each folder once. Reported by name and skipped: an unreadable file or folder, a file that is no image,
    a side below `min_side`, a size over `limits`.

    Args:
        root: the folder.
        min_side: what the shorter side must have at least, in pixels; the crop's side for training with crops.
        limits: the largest image to accept.
        progress: called while headers are read.

    Raises:
        DataError: `root` is no folder, or no image in it can be used.
        ValueError: `min_side` is below 1.
    """
    if min_side < 1:
        raise ValueError(f"min_side is {min_side}; it must be >= 1")
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give one that holds images")
    items: list[ImageItem] = []
    problems: list[Problem] = []
    paths = sorted(_image_paths(root, problems))
    for done, path in enumerate(paths, 1):
        try:
            width, height = _header_size(root / path)
        except UnidentifiedImageError:
            problems.append(Problem(path, f"is not an image in one of {', '.join(READABLE_FORMATS)}, or is damaged"))
        except Exception as error:  # a plugin raises nearly anything on a damaged header
            problems.append(Problem(path, f"cannot be read: {explain(error)}"))
        else:
            reason = _refusal(width, height, min_side, limits)
            if reason is None:
                items.append(ImageItem(path, width, height))
            else:
                problems.append(Problem(path, reason))
        if progress is not None:
            progress(done, len(paths))
    if not items:
        found = f"{len(problems)} problems: {describe(problems)}" if problems else "none was found"
        raise DataError(f"{root} has no usable image ({found}); give a folder with images of at least {min_side} px")
    return ImageFolder(root, tuple(items), tuple(problems), limits)


def explain(error: Exception) -> str:
    """An exception -> its text in one line, without the path that the caller names anyway."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _image_paths(root: Path, problems: list[Problem]) -> Iterator[str]:
    """A folder -> the relative paths of what is named like an image; unreadable folders become problems."""

    def unreadable(error: OSError) -> None:
        name = Path(error.filename).relative_to(root).as_posix()
        problems.append(Problem(name, f"cannot be listed: {explain(error)}"))

    seen: set[tuple[int, int]] = set()
    for folder, subfolders, files in os.walk(root, onerror=unreadable, followlinks=True):
        status = os.stat(folder)
        # A link to a folder further up would never end.
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        relative = Path(folder).relative_to(root)
        for name in files:
            if not name.startswith(".") and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
                yield (relative / name).as_posix()


def _header_size(path: Path) -> tuple[int, int]:
    """An image file -> width and height by its header; no pixel is decoded."""
    with warnings.catch_warnings():
        # Pillow warns about large images, which `_refusal` judges, and about formats that did not match.
        warnings.simplefilter("ignore")
        with Image.open(path, formats=READABLE_FORMATS) as image:
            return image.size


def _refusal(width: int, height: int, min_side: int, limits: ImageLimits) -> str | None:
    """A size in pixels -> why it cannot be used, or None."""
    if min(width, height) < min_side:
        return f"is {width}x{height}; each side must be at least {min_side} px"
    if max(width, height) > limits.max_side:
        return f"is {width}x{height}; each side must be at most {limits.max_side} px"
    if width * height > limits.max_pixels:
        return f"is {width}x{height}, {width * height} pixels; at most {limits.max_pixels} are decoded"
    return None
