# SPDX-License-Identifier: Apache-2.0
"""A location -> its images as items, sorted by key, and the bytes of each item."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from latentwire_core.folders import find_files
from latentwire_core.formats import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Item:
    """One image of a source."""

    key: str
    location: str
    num_bytes: int
    caption: str | None = None
    label: int | None = None
    sidecars: tuple[str, ...] = ()


class Source(Protocol):
    """Images by key."""

    def items(self) -> Iterator[Item]:
        """Yield the items, sorted by key; the same each time."""
        ...

    def read(self, item: Item) -> bytes:
        """Return the bytes of an image file; raises OSError."""
        ...

    @property
    def left_out(self) -> Mapping[str, int]:
        """Reasons -> numbers of what is left out, known after `items`."""
        ...


class FolderSource:
    """The images of a local folder, nested to any depth."""

    def __init__(self, root: str, caption_suffixes: Sequence[str]) -> None:
        self._root = Path(root)
        self._caption_suffixes = tuple(caption_suffixes)
        self.left_out: Mapping[str, int] = {}

    def items(self) -> Iterator[Item]:
        """Yield the items, sorted by key."""
        for file in sorted(find_files(self._root, IMAGE_SUFFIXES).files, key=lambda path: path.as_posix()):
            path = self._root / file
            captions = [path.with_suffix(suffix) for suffix in self._caption_suffixes]
            caption = next((each.read_text().strip() for each in captions if each.is_file()), None)
            yield Item(file.as_posix(), str(path), path.stat().st_size if path.exists() else 0, caption)

    def read(self, item: Item) -> bytes:
        """Return the bytes of an image file."""
        return Path(item.location).read_bytes()


def open_source(location: str, *, kind: str = "auto", caption_suffixes: Sequence[str] = (".txt", ".caption")) -> Source:
    """Map a location to its source; picklable.

    Raises:
        ValueError: there is no such folder.
    """
    if not Path(location).is_dir():
        raise ValueError(f"{location} is no folder; give a folder of images")
    return FolderSource(location, caption_suffixes)
