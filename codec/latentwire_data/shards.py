# SPDX-License-Identifier: Apache-2.0
"""WebDataset shards -> their images, with the captions and classes of their samples.

A sample is the members of a tar archive, one after the other, that share a name up to the first dot of its last part;
what follows that dot is the member's field. See https://github.com/webdataset/webdataset#the-webdataset-format.
"""

import itertools
import json
import posixpath
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from latentwire_core.errors import DataError
from latentwire_core.formats import IMAGE_SUFFIXES
from latentwire_data.item import Item, described
from latentwire_data.places import Place, open_file, read_bytes, size_of

TEXTS = ("txt", "caption", "text")
"""The fields that are a caption; the first that is there counts, over the one in `json`."""


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
            for sample, members in itertools.groupby(_members(location, problems), key=lambda member: member.sample):
                fields = list(members)
                images = [each for each in fields if f".{each.field.rpartition('.')[2]}" in IMAGE_SUFFIXES]
                if sample in seen:
                    raise DataError(f"{location} has two samples named {sample!r}; give each a name of its own")
                seen.add(sample)
                if not images:
                    without += 1
                    continue
                if len(images) > 1:
                    raise DataError(f"the sample {sample!r} of {location} has {len(images)} images; one is needed")
                image = images[0]
                yield Item(f"{shard}/{sample}", location, image.size, image.offset, *_beside(location, fields))
        self.problems = problems
        self.left_out = f"{without} samples without an image" if without else ""

    def read(self, item: Item) -> bytes:
        """Return the bytes of an image; raises OSError."""
        return read_bytes(item.location, item.position, item.num_bytes)

    def _names(self) -> Sequence[str]:
        return [*self.place.listing((".tar",)).sizes] if self.place.is_folder() else [""]


class _Member(NamedTuple):
    """A file of an archive: its sample and field, where its bytes are, and those of a text."""

    sample: str
    field: str
    offset: int
    size: int
    text: bytes


def _members(location: str, problems: dict[str, str]) -> Iterator[_Member]:
    """Yield the files in an archive; what ends too early is a problem.

    Raises:
        DataError: it is no tar archive without compression, or it cannot be read.
    """
    try:
        end = size_of(location)
        with open_file(location) as source, tarfile.open(fileobj=source, mode="r:") as archive:
            for member in archive:
                if not member.isfile() or posixpath.basename(member.name).startswith("."):
                    continue
                if member.offset_data + member.size > end:
                    problems[location] = f"ends inside {member.name}; copy the shard again"
                    return
                folder, base = posixpath.split(member.name)
                stem, _, name = base.partition(".")
                name = name.lower()
                held = archive.extractfile(member) if name in (*TEXTS, "json", "cls") else None
                text = b"" if held is None else held.read()
                yield _Member(posixpath.join(folder, stem), name, member.offset_data, member.size, text)
    except tarfile.ReadError as error:
        raise DataError(f"{location} is no tar archive without compression ({error})") from error
    except OSError as error:
        raise DataError(f"{location} cannot be read: {error.strerror or error}") from error


def _beside(location: str, members: Sequence[_Member]) -> tuple[str | None, int | None]:
    """Return the caption and the class of a sample, of its text, `cls` and `json` fields.

    Raises:
        DataError: a field is not UTF-8, not JSON, or no number.
    """
    caption: str | None = None
    label: int | None = None
    try:
        texts = {member.field: member.text.decode("utf-8") for member in members}
        if "json" in texts and isinstance(about := json.loads(texts["json"]), dict):
            caption, label = described(about)
        caption = next((texts[name].strip() for name in TEXTS if name in texts), caption)
        if "cls" in texts:
            label = int(texts["cls"])
    except ValueError as error:
        at = members[0].offset
        raise DataError(f"{location} has a field that cannot be read at byte {at}: {error}") from error
    return caption, label
