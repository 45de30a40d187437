# SPDX-License-Identifier: Apache-2.0
"""Images and settings -> a plan.

    source -> each image: digest of the bytes, size, orientation -> frame (by the rule) -> shards of one bucket

A plan that is made again keeps the shards whose images are as they were; other images go to new shards behind the last.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from typing import Any

from latentwire_cache.buckets import SizeRule
from latentwire_cache.plan import Draft, Origin, Plan, PlannedItem, Shard, Unusable
from latentwire_cache.settings import CacheError, Settings, canonical, digest
from latentwire_cache.store import Store
from latentwire_codec.images.files import ImageLimits, open_image
from latentwire_core.errors import ImageError
from latentwire_data.item import Item
from latentwire_data.source import Source

LIMITS = ImageLimits(max_side=32_768, max_pixels=80_000_000)
"""The largest image that is encoded: wider than a server's limits for files, since the worker decodes the file."""
READERS = 8
AHEAD = 1024
"""Images that are looked at before the next ones are asked for."""
SHARD_BYTES = 64 * 2**20
MAX_SHARD_ITEMS = 256


def make_plan(
    origin: Origin,
    rule: SizeRule,
    settings: Settings,
    *,
    into: str = "",
    previous: Plan | None = None,
    store: Store | None = None,
    on_image: Callable[[int], None] = lambda num_bytes: None,
) -> Draft:
    """Look at every image of a source, and divide the images into shards.

    Args:
        origin: where the images come from.
        rule: maps the size of an image to its frame; what `settings.rule` names.
        settings: what the cache is made with.
        into: see `Plan`.
        previous: a plan whose shards are kept where their images are as they were.
        store: where the previous plan is written.
        on_image: called with the bytes of each image.

    Raises:
        CacheError: no image can be used.
        ValueError, OSError: the source cannot be opened.
    """
    planned, unusable = _examine(origin.open(), rule, on_image)
    if not planned:
        raise CacheError(_no_image(origin, unusable))
    waiting = {each.item.key: each for each in planned}
    chosen: list[tuple[int, str, list[PlannedItem]]] = []
    if previous is not None and store is not None and previous.settings.latents_digest == settings.latents_digest:
        for shard, items in previous.all_items(store):
            now = [waiting.get(each.item.key) for each in items]
            if all(new is not None and new.fingerprint == old.fingerprint for new, old in zip(now, items, strict=True)):
                chosen.append((shard.number, shard.name, [waiting.pop(each.item.key) for each in items]))
    first = 0 if previous is None else 1 + max(shard.number for shard in previous.shards)
    for number, items in enumerate(_divide(waiting.values(), settings), first):
        chosen.append((number, _shard_name(number, items, settings), items))
    return _written(chosen, unusable, settings, origin, into)


def _examine(
    source: Source, rule: SizeRule, on_image: Callable[[int], None]
) -> tuple[list[PlannedItem], list[Unusable]]:
    planned: list[PlannedItem] = []
    unusable: list[Unusable] = []

    def examine(item: Item) -> PlannedItem | Unusable:
        try:
            data = source.read(item)
            image = open_image(data, LIMITS)
            header, orientation = image.size, image.orientation
            return PlannedItem(
                item, hashlib.sha256(data).hexdigest(), header, orientation, rule.frame(header, orientation)
            )
        except (ImageError, OSError, ValueError) as error:
            return Unusable(item, _reason(error))

    with ThreadPoolExecutor(READERS) as pool:
        for some in _batched(source.items(), AHEAD):
            for each in pool.map(examine, some):
                on_image(each.item.num_bytes)
                if isinstance(each, PlannedItem):
                    planned.append(each)
                else:
                    unusable.append(each)
    unusable += [Unusable(Item(name, name, 0), why) for name, why in source.problems.items()]
    return planned, unusable


def _divide(items: Iterable[PlannedItem], settings: Settings) -> Iterator[list[PlannedItem]]:
    """Yield the images of each new shard: by bucket, then by key."""
    buckets: dict[tuple[int, int], list[PlannedItem]] = defaultdict(list)
    for each in items:
        buckets[each.frame.bucket].append(each)
    for bucket in sorted(buckets):
        inside = sorted(buckets[bucket], key=lambda each: each.item.key)
        yield from _batched(iter(inside), settings.shard_items or _default_count(settings, bucket))


def _default_count(settings: Settings, bucket: tuple[int, int]) -> int:
    channels, height, width = settings.model.latent_shape(bucket)
    arrays = (2 if settings.keep == "moments" and settings.model.has_logvar else 1) * (2 if settings.flip else 1)
    one = channels * height * width * (4 if settings.dtype == "float32" else 2) * arrays
    one += bucket[0] * bucket[1] if settings.alpha_mask else 0
    return min(max(SHARD_BYTES // one, 1), MAX_SHARD_ITEMS)


def _shard_name(number: int, items: Sequence[PlannedItem], settings: Settings) -> str:
    content = {"latents": settings.latents_digest, "items": [each.fingerprint for each in items]}
    return f"{number:06d}-{digest(content)[:16]}"


def _written(
    chosen: Sequence[tuple[int, str, list[PlannedItem]]],
    unusable: Sequence[Unusable],
    settings: Settings,
    origin: Origin,
    into: str,
) -> Draft:
    """Write the lines of the items, and say in the plan where each shard's lines are."""
    lines, shards, covered = bytearray(), [], hashlib.sha256(canonical(asdict(settings)))
    for number, name, items in sorted(chosen, key=lambda each: each[0]):
        start = len(lines)
        for each in items:
            lines += canonical(each.to_json()) + b"\n"
            covered.update(canonical([name, each.fingerprint, each.header, *each.described]))
        shards.append(Shard(number, name, items[0].frame.bucket, len(items), start, len(lines)))
    start = len(lines)
    for bad in unusable:
        lines += canonical(asdict(bad)) + b"\n"
        covered.update(canonical([bad.item.key, bad.reason]))
    file = f"items-{hashlib.sha256(lines).hexdigest()[:16]}.jsonl"
    bounds = (start, len(lines), len(unusable))
    return Draft(Plan(settings, origin, into, file, tuple(shards), bounds, covered.hexdigest()), bytes(lines))


def _no_image(origin: Origin, unusable: Sequence[Unusable]) -> str:
    if not unusable:
        return f"{origin.location} holds no image"
    first = unusable[0]
    return f"none of the {len(unusable)} images of {origin.location} can be used; {first.item.key}: {first.reason}"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _batched(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while some := list(islice(items, size)):
        yield some
