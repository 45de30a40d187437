# SPDX-License-Identifier: Apache-2.0
"""A path or a URL -> the files below it, and their bytes.

A local path needs no further package; a URL (`s3://bucket/photos`) needs fsspec and the package of its protocol.
"""

import posixpath
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from latentwire_core.errors import DataError
from latentwire_core.extras import install_hint
from latentwire_core.folders import find_files


@dataclass(frozen=True)
class Listing:
    """The files below a folder.

    Attributes:
        sizes: path relative to the folder, with `/` -> bytes, in the order of the paths.
        problems: folders and files that cannot be looked at -> why.
        left_out: numbers and reasons of the other entries; empty: there are none.
    """

    sizes: Mapping[str, int]
    problems: Mapping[str, str] = field(default_factory=dict)
    left_out: str = ""


class Place(Protocol):
    """A file or a folder, local or behind a URL; picklable."""

    @property
    def root(self) -> str:
        """Its path or URL."""

    def is_folder(self) -> bool:
        """Tell whether it is a folder; raises DataError where there is nothing."""

    def listing(self, suffixes: Collection[str]) -> Listing:
        """Return the files below it with one of the suffixes, in lower case with their dots."""

    def join(self, path: str) -> str:
        """Map a path relative to it, or an absolute one, to the path or the URL of a file."""


def place(location: str) -> Place:
    """Map a path or a URL to its place."""
    return Remote(location.rstrip("/")) if "://" in location else Local(location)


def read_bytes(location: str, start: int | None = None, size: int | None = None) -> bytes:
    """Read a file, or `size` bytes of it from the offset `start`; raises OSError."""
    if "://" in location:
        end = None if start is None or size is None else start + size
        system, path = _system(location)
        data: bytes = system.cat_file(path, start=start, end=end)
        return data
    with Path(location).open("rb") as file:
        if start is not None:
            file.seek(start)
        return file.read() if size is None else file.read(size)


def size_of(location: str) -> int:
    """Return the bytes of a file; raises OSError."""
    if "://" in location:
        system, path = _system(location)
        return int(system.size(path))
    return Path(location).stat().st_size


def open_file(location: str) -> BinaryIO:
    """Open a file to be read in pieces; raises OSError."""
    if "://" in location:
        system, path = _system(location)
        file: BinaryIO = system.open(path, "rb")
        return file
    return Path(location).open("rb")


@dataclass(frozen=True)
class Local:
    """A path of this machine."""

    root: str

    def is_folder(self) -> bool:
        """Tell whether it is a folder.

        Raises:
            DataError: there is nothing.
        """
        path = Path(self.root)
        if not path.exists():
            raise DataError(f"{self.root} is neither a folder nor a file; name one that exists")
        return path.is_dir()

    def listing(self, suffixes: Collection[str]) -> Listing:
        """Return the files below it, by the rule of `find_files`."""
        root = Path(self.root)
        found = find_files(root, suffixes)
        problems = {path.as_posix(): f"cannot be listed: {why}" for path, why in found.unlistable.items()}
        sizes = {}
        for path in sorted(path.as_posix() for path in found.files):
            try:
                sizes[path] = (root / path).stat().st_size
            except OSError as error:
                problems[path] = f"cannot be read: {error.strerror or error}"
        return Listing(sizes, problems, found.left_out)

    def join(self, path: str) -> str:
        """Map a path relative to it, an absolute path or a URL to the path or URL of a file."""
        return path if "://" in path else str(Path(self.root) / path)


@dataclass(frozen=True)
class Remote:
    """A URL."""

    root: str

    def is_folder(self) -> bool:
        """Tell whether objects are below it.

        Raises:
            DataError: there is nothing.
        """
        system, path = _system(self.root)
        if not system.exists(path):
            raise DataError(f"{self.root} names nothing that can be read; check the URL and the rights")
        return bool(system.isdir(path))

    def listing(self, suffixes: Collection[str]) -> Listing:
        """Return the objects below it; those below hidden names (`.name`) are left out."""
        system, root = _system(self.root)
        sizes, hidden, others = {}, 0, 0
        for path, about in sorted(system.find(root, detail=True).items()):
            below = posixpath.relpath(path, root)
            if any(part.startswith(".") for part in below.split("/")):
                hidden += 1
            elif posixpath.splitext(below)[1].lower() in suffixes:
                sizes[below] = int(about["size"])
            else:
                others += 1
        words = [f"{hidden} hidden"] * bool(hidden) + [f"{others} of other kinds"] * bool(others)
        return Listing(sizes, left_out=", ".join(words))

    def join(self, path: str) -> str:
        """Map a path relative to it, or a URL, to the URL of a file."""
        return path if "://" in path else f"{self.root}/{path}"


def _system(url: str) -> tuple[Any, str]:
    """Map a URL to the file system that has it, whose listings are fresh, and the path there.

    Raises:
        DataError: fsspec, or the package of the protocol, is not installed, or no protocol of that name is known.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise DataError(f"{url} needs fsspec: {install_hint('cache')}") from error
    try:
        system, path = url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise DataError(f"{url} cannot be opened: {error}") from error
    return system, path
