# SPDX-License-Identifier: Apache-2.0
"""WebDataset shards -> their images, with the captions and classes of their samples.

A sample is the members of a tar archive, one after the other, that share a name up to the first dot of its last part;
what follows that dot is the member's field. See https://github.com/webdataset/webdataset#the-webdataset-format.
"""

import io
import itertools
import json
import posixpath
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from latentwire_core.errors import DataError
from latentwire_core.formats import IMAGE_SUFFIXES
from latentwire_data.item import Item
from latentwire_data.places import Place, read_bytes

CAPTIONS = ("txt", "caption", "text")
JSON_CAPTIONS = ("caption", "text", "prompt")


@dataclass
class Shards:
    """The images of tar archives.

    Attributes:
        place: the folder of the shards, or one shard.
        problems: the shards that end too early -> why; known after `items`.
        left_out: numbers and reasons of what was passed over; known after `items`.
    """

    place: Place
    problems: Mapping[str, str] = field(default_factory=dict)
    left_out: str = ""

    def items(self) -> Iterator[Item]:
        """Yield the images in the order of the shards and of their members; a key is SHARD/NAME.

        Raises:
            DataError: a shard is no tar archive, a sample has two images, or two samples have one name.
        """
        problems: dict[str, str] = {}
        without = 0
        for name in self._names():
            location = self.place.join(name) if name else self.place.root
            shard = posixpath.splitext(name or posixpath.basename(location))[0]
            seen: set[str] = set()
            for sample, members in itertools.groupby(_members(location, problems), key=lambda member: member[0]):
                fields = [(field, at, size) for _, field, at, size in members]
                images = [each for each in fields if f".{each[0].rpartition('.')[2]}" in IMAGE_SUFFIXES]
                if sample in seen:
                    raise DataError(f"{location} has two samples named {sample!r}; give each a name of its own")
                seen.add(sample)
                if not images:
                    without += 1
                    continue
                if len(images) > 1:
                    raise DataError(f"the sample {sample!r} of {location} has {len(images)} images; one is needed")
                _, offset, size = images[0]
                caption, label = _beside(location, fields)
                yield Item(f"{shard}/{sample}", location, size, offset, caption, label)
        self.problems = problems
        self.left_out = f"{without} samples without an image" if without else ""

    def read(self, item: Item) -> bytes:
        """Return the bytes of an image; raises OSError."""
        return read_bytes(item.location, item.position, item.num_bytes)

    def _names(self) -> Sequence[str]:
        return [*self.place.listing((".tar",)).sizes] if self.place.is_folder() else [""]


def _members(location: str, problems: dict[str, str]) -> Iterator[tuple[str, str, int, int]]:
    """Yield sample, field, offset and size of the files in an archive; what ends too early is a problem.

    Raises:
        DataError: it is no tar archive without compression, or it cannot be read.
    """
    if "://" in location:
        source: io.BufferedIOBase = io.BytesIO(read_bytes(location))
    else:
        try:
            source = open(location, "rb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise DataError(f"{location} cannot be read: {error.strerror or error}") from error
    with source:
        end = source.seek(0, io.SEEK_END)
        source.seek(0)
        try:
            with tarfile.open(fileobj=source, mode="r:") as archive:
                for member in archive:
                    if not member.isfile() or posixpath.basename(member.name).startswith("."):
                        continue
                    if member.offset_data + member.size > end:
                        problems[location] = f"ends inside {member.name}; copy the shard again"
                        return
                    folder, base = posixpath.split(member.name)
                    stem, _, name = base.partition(".")
                    yield posixpath.join(folder, stem), name.lower(), member.offset_data, member.size
        except tarfile.ReadError as error:
            raise DataError(f"{location} is no tar archive without compression ({error})") from error


def _beside(location: str, fields: Sequence[tuple[str, int, int]]) -> tuple[str | None, int | None]:
    """Return the caption and the class of a sample, of its text, `cls` and `json` fields.

    Raises:
        DataError: a field is not UTF-8, not JSON, or no number.
    """
    caption: str | None = None
    label: int | None = None
    by_name = {name: (offset, size) for name, offset, size in fields}
    try:
        if "json" in by_name:
            about = json.loads(_text(location, *by_name["json"]))
            if isinstance(about, dict):
                caption = next((about[name] for name in JSON_CAPTIONS if isinstance(about.get(name), str)), None)
                label = about["label"] if isinstance(about.get("label"), int) else None
        for name in CAPTIONS:
            if name in by_name:
                caption = _text(location, *by_name[name]).strip()
                break
        if "cls" in by_name:
            label = int(_text(location, *by_name["cls"]))
    except ValueError as error:
        raise DataError(f"{location} has a field that cannot be read at byte {fields[0][1]}: {error}") from error
    return caption, label


def _text(location: str, offset: int, size: int) -> str:
    return read_bytes(location, offset, size).decode("utf-8")
