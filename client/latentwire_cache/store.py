# SPDX-License-Identifier: Apache-2.0
"""Names -> bytes in a local folder or an object store, each file whole or not there, whatever ends the process."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast

from latentwire_cache.settings import CacheError
from latentwire_core.extras import install_hint
from latentwire_core.files import remove_partials, sync_folder, write_whole


class Store(Protocol):
    """Files by name: POSIX paths below one location. Every method raises OSError where the storage fails."""

    @property
    def location(self) -> str:
        """The folder or URL, as `open_store` takes it."""
        ...

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of a file, or those from `start` to `end`; raises FileNotFoundError."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole, in the place of one that is there."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file whole where there is none; return False, and change nothing, where there is one."""
        ...

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of the files below a folder, sorted, without partial files."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def clean(self, folder: str) -> int:
        """Remove what killed writers left below a folder; return the number of files."""
        ...


def open_store(location: str) -> Store:
    """Map a local path, or a URL that fsspec knows such as `s3://bucket/folder`, to its store.

    Raises:
        CacheError: the URL's protocol is unknown, or a package for it is missing.
    """
    protocol, separator, path = location.partition("://")
    if not separator:
        return LocalStore(location)
    if protocol in {"file", "local"}:
        return LocalStore(path)
    try:
        import fsspec
    except ImportError:
        raise CacheError(f"{location} is a URL, which needs fsspec: {install_hint('cache')}") from None
    try:
        # A listing that is remembered would hide what other processes have written.
        filesystem, root = fsspec.url_to_fs(location, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise CacheError(f"{location} cannot be opened: {error}") from error
    return ObjectStore(location, filesystem, root.rstrip("/"))


@dataclass(frozen=True)
class LocalStore:
    """Files below a local folder, which is made when the first file is written."""

    location: str

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of a file, or those from `start` to `end`."""
        with self._path(name).open("rb") as file:
            file.seek(start)
            return file.read(-1 if end is None else end - start)

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole, and let the folder's entry reach the disk."""
        path = self._path(name)
        write_whole(path, data)
        sync_folder(path.parent)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file whole where there is none."""
        path = self._path(name)
        try:
            write_whole(path, data, replace=False)
        except FileExistsError:
            return False
        sync_folder(path.parent)
        return True

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of the files below a folder, sorted; hidden files are partial files."""
        root = Path(self.location)
        found = (path for path in self._path(folder).rglob("*") if path.is_file() and not path.name.startswith("."))
        yield from sorted(path.relative_to(root).as_posix() for path in found)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self._path(name).unlink(missing_ok=True)

    def clean(self, folder: str) -> int:
        """Remove the partial files below a folder that no writer has locked."""
        root = self._path(folder)
        folders = [root, *(path for path in root.rglob("*") if path.is_dir())] if root.is_dir() else []
        return sum(remove_partials(each) for each in folders)

    def _path(self, name: str) -> Path:
        return Path(self.location) / _checked(name)


@dataclass(frozen=True)
class ObjectStore:
    """Objects below a URL. An object is put in one piece, which an object store does whole or not at all."""

    location: str
    filesystem: Any
    root: str

    def __reduce__(self) -> tuple[Any, ...]:
        # A file system with a thread of its own must not go to another process.
        return open_store, (self.location,)

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of an object, or those from `start` to `end`."""
        return bytes(self.filesystem.cat_file(self._path(name), start=start or None, end=end))

    def write(self, name: str, data: bytes) -> None:
        """Put an object."""
        self._put(name, data, "overwrite")

    def create(self, name: str, data: bytes) -> bool:
        """Put an object on the condition that there is none (`If-None-Match: *`)."""
        try:
            self._put(name, data, "create")
        except FileExistsError:
            return False
        return True

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of the objects below a folder, sorted."""
        self.filesystem.invalidate_cache()
        prefix = f"{self.root}/"
        for path in sorted(cast(list[str], self.filesystem.find(self._path(folder)))):
            yield path.removeprefix(prefix)

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with suppress(FileNotFoundError):
            self.filesystem.rm_file(self._path(name))

    def clean(self, folder: str) -> int:
        """Return 0: a put that was broken off leaves no object."""
        return 0

    def _put(self, name: str, data: bytes, mode: str) -> None:
        path = self._path(name)
        try:
            self.filesystem.pipe_file(path, data, mode=mode)
        except FileNotFoundError:  # a file system with folders
            self.filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
            self.filesystem.pipe_file(path, data, mode=mode)

    def _path(self, name: str) -> str:
        return f"{self.root}/{_checked(name)}"


def _checked(name: str) -> str:
    """Return a name; raise ValueError where it leads out of the store."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name:
        raise ValueError(f"the name {name!r} leads out of the cache")
    return name
