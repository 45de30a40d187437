# SPDX-License-Identifier: Apache-2.0
"""Encoded images -> MDS shards and `index.json`, as MosaicML's streaming and its diffusion training read them.

    shard: number of samples N, N + 1 offsets (uint32 each), the settings as JSON, then the samples
    sample: the sizes of its fields (uint32 each, in the order of their names), then the fields

Sources: mosaicml/streaming (89e7bb9), `streaming/base/format/mds/`; mosaicml/diffusion (49282fd),
`diffusion/datasets/laion/laion.py` and `scripts/precompute_latents.py`.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from latentwire_cache.formats.content import cast, json_text
from latentwire_cache.formats.encoded import Encoded, File, Note, Shards, Space, drawn, scaled

# The training code opens each image before it takes the latents, and then does not use it: a grey JPEG of 1x1.
GREY = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300080606070605080707070909080a0c140d0c0b0b0c1912130f141d1a1f1e1d"
    "1a1c1c20242e2720222c231c1c2837292c30313434341f27393d38323c2e333432ffc0000b080001000101011100ffc40014000100000000"
    "000000000000000000000000ffc40014100100000000000000000000000000000000ffda0008010100003f003fffd9"
)


class Mds(Shards):
    """Shards of scaled float16 samples, in the column `latents_256` or `latents_512`, named by the side of the square.

    Other columns: `caption`, `key` and `jpg`, a picture of one pixel that the reader opens and does not use.
    """

    name = "mds"
    rule = "imagenet"
    needs = frozenset({"sample"})

    def files(self, items: Sequence[Encoded], space: Space, shard: int) -> Iterator[File]:
        """Yield one shard."""
        samples = [_sample(self._columns(item, space)) for item in items]
        config = json.dumps(_config(self._columns(items[0], space)), sort_keys=True).encode()
        offsets = np.cumsum([4 + 4 * (len(samples) + 1) + len(config), *map(len, samples)], dtype=np.uint64)
        if offsets[-1] >= 2**32:
            raise ValueError(f"shard {shard} takes {offsets[-1]} bytes; MDS has room for 4 GiB: plan smaller shards")
        head = np.uint32(len(samples)).tobytes() + offsets.astype("<u4").tobytes()
        yield _basename(shard), head + config + b"".join(samples)

    def note(self, items: Sequence[Encoded], space: Space, shard: int) -> Note:
        """Return the shard's entry in `index.json`."""
        [(_, data)] = self.files(items, space, shard)
        raw = {"basename": _basename(shard), "bytes": len(data), "hashes": {}}
        return {**_config(self._columns(items[0], space)), "raw_data": raw, "samples": len(items), "zip_data": None}

    def index(self, notes: Sequence[Note]) -> Iterator[File]:
        """Yield `index.json`."""
        yield "index.json", json_text({"shards": list(notes), "version": 2})

    def _columns(self, item: Encoded, space: Space) -> dict[str, tuple[str, bytes]]:
        """Map an image to its fields, sorted by name: the encoding, and the bytes."""
        width, height = item.frame.bucket
        if width != height:
            raise ValueError(f"{item.key} has {width}x{height} pixels; mds needs squares: plan with imagenet")
        latents = cast(scaled(drawn(item), space), "float16", item.key).tobytes()
        return {
            "caption": ("str", (item.caption or "").encode()),
            "jpg": ("bytes", GREY),
            "key": ("str", item.key.encode()),
            f"latents_{width}": ("bytes", latents),
        }


def _basename(shard: int) -> str:
    return f"shard.{shard:05d}.mds"


def _config(columns: dict[str, tuple[str, bytes]]) -> dict[str, Any]:
    return {
        "column_encodings": [encoding for encoding, _ in columns.values()],
        "column_names": list(columns),
        "column_sizes": [None] * len(columns),
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": None,
        "version": 2,
    }


def _sample(columns: dict[str, tuple[str, bytes]]) -> bytes:
    fields = [data for _, data in columns.values()]
    return np.array([len(each) for each in fields], "<u4").tobytes() + b"".join(fields)
