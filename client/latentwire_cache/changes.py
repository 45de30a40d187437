# SPDX-License-Identifier: Apache-2.0
"""The images of a plan, and as they are now -> what changed, by name."""

from collections.abc import Iterable
from dataclasses import dataclass

from latentwire_cache.plan import PlannedItem

NAMED = 5


@dataclass(frozen=True)
class Changes:
    """The keys of images that are not as they were.

    Attributes:
        added: there were no such images.
        removed: there are no such images any more.
        images: the bytes of the files differ.
        frames: the rule of sizes cuts them otherwise.
        captions: the caption or the label differs.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.added, self.removed, self.images, self.frames, self.captions))

    def in_words(self) -> list[str]:
        """Return a line for each kind of change, with the first keys."""
        kinds = (
            (self.images, "changed image"), (self.frames, "otherwise cut image"),
            (self.captions, "changed caption or label"), (self.added, "added image"), (self.removed, "removed image"),
        )  # fmt: skip
        return [f"{len(keys)} {what}{_plural(keys)}: {_named(keys)}" for keys, what in kinds if keys]


def changes(before: Iterable[PlannedItem], now: Iterable[PlannedItem]) -> Changes:
    """Compare two lists of images by their keys."""
    old = {each.item.key: each for each in before}
    new = {each.item.key: each for each in now}
    both = sorted(old.keys() & new.keys())
    same_bytes = [key for key in both if old[key].sha256 == new[key].sha256]
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        images=tuple(key for key in both if old[key].sha256 != new[key].sha256),
        frames=tuple(key for key in same_bytes if old[key].fingerprint != new[key].fingerprint),
        captions=tuple(key for key in both if old[key].described != new[key].described),
    )


def _plural(keys: tuple[str, ...]) -> str:
    return "" if len(keys) == 1 else "s"


def _named(keys: tuple[str, ...]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more
