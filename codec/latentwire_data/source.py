# SPDX-License-Identifier: Apache-2.0
"""A path or a URL -> the source of its images.

folder        image files, nested to any depth, with captions beside them
webdataset    tar archives, or a folder of them
huggingface   parquet files, a folder with metadata, a dataset on disk: see `tables`
list          lines of paths, or JSON objects: `.txt`, `.lst`, `.jsonl`
"""

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from latentwire_core.errors import DataError
from latentwire_core.formats import IMAGE_SUFFIXES
from latentwire_data.folder import Folder
from latentwire_data.item import Item
from latentwire_data.lists import FileList
from latentwire_data.places import Place, place
from latentwire_data.shards import Shards
from latentwire_data.tables import METADATA, Table

AUTO = "auto"
CAPTION_SUFFIXES = (".txt", ".caption")
LISTS = (".txt", ".lst", ".jsonl")


class Source(Protocol):
    """Images by key; picklable, so that other processes read the same."""

    @property
    def problems(self) -> Mapping[str, str]:
        """What cannot be looked at -> why; known after `items`."""

    @property
    def left_out(self) -> str:
        """Numbers and reasons of what was passed over, empty where there is nothing; known after `items`."""

    def items(self) -> Iterator[Item]:
        """Yield the images, in the same order each time; raises DataError."""

    def read(self, item: Item) -> bytes:
        """Return the bytes of an image file; raises OSError."""


def open_source(location: str, kind: str = AUTO, caption_suffixes: Sequence[str] = CAPTION_SUFFIXES) -> Source:
    """Map a path or a URL to its source.

    Args:
        location: a path, or a URL of fsspec (`s3://bucket/photos`).
        kind: folder, webdataset, huggingface or list; auto: by the suffix, or by what the folder holds.
        caption_suffixes: of the text files beside the images of a folder.

    Raises:
        DataError: there is nothing at the location, or its kind is unknown.
    """
    here = place(location)
    kinds: Mapping[str, Callable[[], Source]] = {
        "folder": lambda: Folder(here, caption_suffixes),
        "webdataset": lambda: Shards(here),
        "huggingface": lambda: Table(location),
        "list": lambda: FileList(location),
    }
    chosen = _kind(here, bool(caption_suffixes)) if kind == AUTO else kind
    if chosen not in kinds:
        raise DataError(f"{kind!r} is no kind of source; there is {', '.join(kinds)}")
    return kinds[chosen]()


def _kind(here: Place, captions: bool) -> str:
    """Return the kind of what is there, by whether captions are wanted.

    Raises:
        DataError: there is nothing, or nothing known.
    """
    if here.is_folder():
        names = here.listing((".tar", ".parquet", ".csv", ".jsonl", ".json", *IMAGE_SUFFIXES)).sizes
        suffixes = {posixpath.splitext(name)[1].lower() for name in names}
        if suffixes & IMAGE_SUFFIXES:
            # Metadata beside images say their captions, and nothing else of use.
            return "huggingface" if captions and any(name in names for name in METADATA) else "folder"
        if "dataset_info.json" in names or ".parquet" in suffixes:
            return "huggingface"
        return "webdataset" if ".tar" in suffixes else "folder"
    suffix = posixpath.splitext(here.root)[1].lower()
    if suffix == ".tar":
        return "webdataset"
    if suffix == ".parquet":
        return "huggingface"
    if suffix in LISTS:
        return "list"
    raise DataError(
        f"{here.root} is no folder, tar archive, parquet file or list ({', '.join(LISTS)}); name one of them"
    )
