# SPDX-License-Identifier: Apache-2.0
"""A plan in a store: which image is in which shard, how it becomes pixels, and a digest over all of it.

A shard has the name NUMBER-DIGEST. The digest covers what decides its bytes, so that a shard that is there is done,
whatever else changed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from latentwire_cache.buckets import Frame
from latentwire_cache.settings import CacheError, Settings
from latentwire_cache.store import Store
from latentwire_data.item import Item
from latentwire_data.source import Source, open_source

PLAN = "plan.json"
FORMAT = "latentwire.cache.plan/1"


@dataclass(frozen=True)
class PlannedItem:
    """An image of the plan.

    Attributes:
        item: the image as its source gave it.
        sha256: SHA-256 of the file's bytes.
        header: (width, height) in the file's header, before the orientation is applied.
        orientation: the EXIF orientation, 1..8.
        frame: how the image becomes pixels.
    """

    item: Item
    sha256: str
    header: tuple[int, int]
    orientation: int
    frame: Frame

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the image's latents, as a JSON value."""
        frame = asdict(self.frame)
        return {"key": self.item.key, "sha256": self.sha256, "orientation": self.orientation, "frame": frame}

    @property
    def described(self) -> tuple[str | None, int | None]:
        """The caption and the label, which decide trainers' files only."""
        return self.item.caption, self.item.label

    def to_json(self) -> dict[str, Any]:
        """Map the item to a JSON value."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Map the value of `to_json` to the item."""
        frame: dict[str, Any] = {
            name: tuple(each) if isinstance(each, list) else each for name, each in value["frame"].items()
        }
        return cls(_item(value["item"]), value["sha256"], tuple(value["header"]), value["orientation"], Frame(**frame))


@dataclass(frozen=True)
class Unusable:
    """An image that cannot be planned, and the reason."""

    item: Item
    reason: str


@dataclass(frozen=True)
class Shard:
    """Images of one bucket that are encoded and written together.

    Attributes:
        number: its place, which it keeps for ever.
        name: NUMBER-DIGEST.
        bucket: (width, height) of the pixels that are encoded.
        count: the number of images.
        start: where its lines begin in the file of items.
        end: where its lines end.
    """

    number: int
    name: str
    bucket: tuple[int, int]
    count: int
    start: int
    end: int


@dataclass(frozen=True)
class Origin:
    """Where the images come from: the arguments of `open_source`."""

    location: str
    kind: str = "auto"

    def open(self) -> Source:
        """Open the source; raises ValueError or OSError where there is none."""
        return open_source(self.location, kind=self.kind)


@dataclass(frozen=True)
class Plan:
    """A plan that is written in a store.

    Attributes:
        settings: what the cache is made with.
        origin: where the images come from.
        into: the folder or URL of the trainer's files; empty: a folder of the cache.
        items_file: the name of the file with a line for each image.
        shards: the shards, by number.
        unusable: (start, end) of the lines of images that cannot be planned, and their number.
        digest: SHA-256 over the settings and, of each image, the key, the bytes, sizes, frame, shard and caption.
    """

    settings: Settings
    origin: Origin
    into: str
    items_file: str
    shards: tuple[Shard, ...]
    unusable: tuple[int, int, int]
    digest: str

    @classmethod
    def load(cls, store: Store) -> Self:
        """Read the plan of a store.

        Raises:
            CacheError: there is no plan, or a plan of another version.
            OSError: the store cannot be read.
        """
        try:
            value = json.loads(store.read(PLAN))
        except FileNotFoundError:
            raise CacheError(f"{store.location} holds no plan; make one with `latentwire cache plan`") from None
        except ValueError as error:
            raise CacheError(f"{store.location}/{PLAN} is no JSON: {error}") from error
        if value.get("format") != FORMAT:
            raise CacheError(f"{store.location}/{PLAN} has the format {value.get('format')!r}; {FORMAT!r} is needed")
        shards = (Shard(**{**each, "bucket": tuple(each["bucket"])}) for each in value["shards"])
        return cls(
            Settings.from_json(value["settings"]), Origin(**value["origin"]), value["into"], value["items_file"],
            tuple(shards), tuple(value["unusable"]), value["digest"],
        )  # fmt: skip

    def save(self, store: Store, items: bytes) -> None:
        """Write the plan and its file of items; an earlier plan is replaced in one step."""
        store.write(self.items_file, items)
        store.write(PLAN, json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True).encode())

    def items(self, store: Store, shard: Shard) -> list[PlannedItem]:
        """Read the images of a shard."""
        return [PlannedItem.from_json(line) for line in self._lines(store, shard.start, shard.end)]

    def all_items(self, store: Store) -> Iterator[tuple[Shard, list[PlannedItem]]]:
        """Yield each shard and its images."""
        for shard in self.shards:
            yield shard, self.items(store, shard)

    def unusable_items(self, store: Store) -> list[Unusable]:
        """Read the images that cannot be planned."""
        start, end, _ = self.unusable
        return [Unusable(_item(line["item"]), line["reason"]) for line in self._lines(store, start, end)]

    @property
    def count(self) -> int:
        """The number of images in shards."""
        return sum(shard.count for shard in self.shards)

    def _lines(self, store: Store, start: int, end: int) -> list[Any]:
        return (
            [json.loads(line) for line in store.read(self.items_file, start, end).splitlines()] if end > start else []
        )


@dataclass(frozen=True)
class Draft:
    """A plan that is not yet written, and the bytes of its file of items."""

    plan: Plan
    items: bytes

    @property
    def planned(self) -> Iterator[PlannedItem]:
        """The images in shards."""
        for line in self.items[: self.plan.unusable[0]].splitlines():
            yield PlannedItem.from_json(json.loads(line))

    def save(self, store: Store) -> None:
        """Write the plan."""
        self.plan.save(store, self.items)


def _item(value: Mapping[str, Any]) -> Item:
    fields: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in value.items()}
    return Item(**fields)
