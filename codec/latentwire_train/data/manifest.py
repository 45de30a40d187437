# SPDX-License-Identifier: Apache-2.0
"""Data files -> one SHA-256 over (relative path, size, SHA-256) of each: which data a model was trained on.

    manifest digest = SHA-256 of, for each file in the order of its path's bytes:
                      path, NUL, size in decimal, NUL, SHA-256 in hex, newline

Any byte that changes in any file changes the digest, and so do a file that is added, left out or renamed. The order
in which files are given, and where the root lies, change nothing.
"""

import hashlib
import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from latentwire_train.data.folder import DataError, Progress, explain

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ManifestEntry:
    """One file.

    Attributes:
        path: relative to the root, with `/`.
        size_bytes: of the file.
        sha256: of the file's bytes, in hex.
    """

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The files of a data set.

    Attributes:
        entries: in the order of the paths' bytes.
        digest: over all of them, in hex.
    """

    entries: tuple[ManifestEntry, ...]
    digest: str

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(entry.size_bytes for entry in self.entries)

    @classmethod
    def of(cls, entries: Iterable[ManifestEntry]) -> "Manifest":
        """Entries in any order -> the manifest.

        Raises:
            ValueError: a path appears twice.
        """
        ordered = tuple(sorted(entries, key=lambda entry: os.fsencode(entry.path)))
        for before, after in itertools.pairwise(ordered):
            if before.path == after.path:
                raise ValueError(f"{after.path} appears twice; give every file once")
        digest = hashlib.sha256()
        for entry in ordered:
            digest.update(os.fsencode(f"{entry.path}\0{entry.size_bytes}\0{entry.sha256}\n"))
        return cls(ordered, digest.hexdigest())


def build_manifest(root: Path, paths: Iterable[str], progress: Progress | None = None) -> Manifest:
    """Files below a root -> their manifest; every byte is read once.

    Args:
        root: what the paths are relative to.
        paths: with `/`, such as the paths of `ImageFolder.items`.
        progress: called after each file.

    Raises:
        DataError: a file cannot be read.
        ValueError: a path appears twice.
    """
    ordered = sorted(paths)
    entries: list[ManifestEntry] = []
    for done, path in enumerate(ordered, 1):
        digest = hashlib.sha256()
        size_bytes = 0
        try:
            with (root / path).open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    size_bytes += len(chunk)
        except OSError as error:
            raise DataError(f"{path} cannot be read for the manifest: {explain(error)}; scan the data again") from error
        entries.append(ManifestEntry(path, size_bytes, digest.hexdigest()))
        if progress is not None:
            progress(done, len(ordered))
    return Manifest.of(entries)
