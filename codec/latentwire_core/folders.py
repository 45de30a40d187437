# SPDX-License-Identifier: Apache-2.0
"""A folder and suffixes -> its files, and what of it was left out, in words; one rule for every command."""

import os
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

SHOWN_SUFFIXES = 5


@dataclass(frozen=True)
class FolderFiles:
    """The files of a folder, nested to any depth.

    Attributes:
        files: relative to the folder, each folder's own files before those of its subfolders, by name.
        unlistable: folders that could not be looked through -> why.
        left_out: numbers and reasons of the other entries; empty: there are none.
    """

    files: tuple[Path, ...]
    unlistable: dict[Path, str]
    left_out: str


def find_files(root: Path, suffixes: Collection[str], avoided: Path | None = None) -> FolderFiles:
    """Map a folder to its files with one of the suffixes, in any case.

    Links are followed, each folder once: a link to a folder further up would never end. A link that leads nowhere
    counts as a file, so that reading it names it. Hidden entries (`.name`) are left out, and so are pipes and devices,
    which may never end.

    Args:
        root: the folder.
        suffixes: with their dots, in lower case.
        avoided: a folder below the root that is not looked through, because it is written to; None: there is none.
    """
    files: list[Path] = []
    unlistable: dict[Path, str] = {}
    counts: Counter[str] = Counter()
    others: Counter[str] = Counter()
    written_to = None if avoided is None else _identity(avoided)
    seen: set[tuple[int, int]] = set()
    waiting = [Path()]
    while waiting:
        here = waiting.pop()
        try:
            identity = _identity(root / here)
            if identity == written_to and here != Path():
                continue
            if identity in seen:
                counts["linked folders that were looked through before"] += 1
                continue
            if identity is not None:
                seen.add(identity)
            with os.scandir(root / here) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            unlistable[here] = error.strerror or str(error)
            continue
        folders = []
        for entry in entries:
            if entry.name.startswith("."):
                counts["hidden"] += 1
            elif _is(entry.is_dir):
                folders.append(here / entry.name)
            elif (suffix := os.path.splitext(entry.name)[1].lower()) not in suffixes:
                others[suffix or "no suffix"] += 1
            elif entry.is_symlink() or _is(entry.is_file):
                files.append(here / entry.name)
            else:
                counts["pipes or devices"] += 1
        waiting += reversed(folders)
    return FolderFiles(tuple(files), unlistable, _in_words(counts, others))


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from all others, by whatever links it is reached; None where it is not there."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is(kind: Callable[[], bool]) -> bool:
    """Ask an entry for its kind; a link in a circle is of no kind."""
    try:
        return kind()
    except OSError:
        return False


def _in_words(counts: Counter[str], others: Counter[str]) -> str:
    words = [f"{count} {what}" for what, count in counts.items()]
    if others:
        shown = sorted(others, key=lambda suffix: (-others[suffix], suffix))
        more = " ..." if len(shown) > SHOWN_SUFFIXES else ""
        words.append(f"{others.total()} of other kinds ({' '.join(shown[:SHOWN_SUFFIXES])}{more})")
    return ", ".join(words)
