# SPDX-License-Identifier: Apache-2.0
"""One image of a source: its key, its place, and what stands beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CAPTIONS = ("caption", "text", "prompt")
"""The names of the text that describes an image, in objects and tables; the first that is there counts."""


@dataclass(frozen=True)
class Item:
    """One image of a source.

    Attributes:
        key: its name, unique in the source and the same each time; `/` between folders.
        location: the path or the URL of its file, of its shard, or of its table.
        num_bytes: the size of the image file.
        position: where it is in a shard (the offset in bytes) or in a table (the row); None: it is the whole file.
        caption: the text beside it; None: there is none.
        label: the number of its class; None: there is none.
        sidecars: the paths or URLs of the files beside it: its caption.
    """

    key: str
    location: str
    num_bytes: int
    position: int | None = None
    caption: str | None = None
    label: int | None = None
    sidecars: tuple[str, ...] = ()


def described(about: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """Map what an object or a row says of an image to its caption and the number of its class."""
    caption = next((about[name] for name in CAPTIONS if isinstance(about.get(name), str)), None)
    label = about.get("label")
    return caption, label if isinstance(label, int) else None
