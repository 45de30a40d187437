# SPDX-License-Identifier: Apache-2.0
"""Encoded images -> WebDataset shards: latents as npy, moments as npy, or latents as `.lat`.

    000007.tar: folder/photo.latent.npy, folder/photo.json, folder/photo.txt (caption), folder/photo.cls (label)

WebDataset ends the key of a sample at the first dot of its name, so that dots in names become `_`; the image's own key
is in the JSON. Members have no times: the same latents give the same file.
"""

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from latentwire_cache.formats.content import cast, json_text, npy, tar, without_suffix
from latentwire_cache.formats.encoded import Encoded, File, NoIndex, Shards, Space, drawn
from latentwire_codec.lat.payload import Provenance, compress_latents


@dataclass(frozen=True)
class Tars(Shards, NoIndex):
    """Shards whose samples hold raw float16 latents, or float32 moments, or `.lat` payloads.

    Attributes:
        name: a key of `FORMATS`.
        needs: what the samples hold.
        compressed: whether latents are `.lat` payloads of the quality `cache`.
    """

    name: str
    needs: frozenset[str]
    compressed: bool = False
    rule: str = "exact"

    def files(self, items: Sequence[Encoded], space: Space, shard: int) -> Iterator[File]:
        """Yield one tar."""
        members: list[File] = []
        taken: set[str] = set()
        for item in items:
            key = _free_key(item.key, taken)
            taken.add(key)
            for suffix, each in (("", item), ("_flip", item.flipped)):
                if each is not None:
                    members += [(f"{key}.{field}", data) for field, data in self._latents(each, suffix, space)]
            members.append((f"{key}.json", json_text(_about(item, space))))
            if item.caption is not None:
                members.append((f"{key}.txt", item.caption.encode()))
            if item.label is not None:
                members.append((f"{key}.cls", str(item.label).encode()))
        yield f"{shard:06d}.tar", tar(members)

    def _latents(self, item: Encoded, suffix: str, space: Space) -> Iterator[File]:
        if self.compressed:
            width, height = item.frame.bucket
            provenance = Provenance("", space.latent_space, space.weights_digest, (height, width))
            yield f"latent{suffix}.lat", compress_latents(drawn(item), provenance=provenance)
        elif "moments" in self.needs:
            yield f"mean{suffix}.npy", npy(cast(item.mean, "float32", item.key))
            if item.logvar is not None:
                yield f"logvar{suffix}.npy", npy(cast(item.logvar, "float32", item.key))
        else:
            yield f"latent{suffix}.npy", npy(cast(drawn(item), "float16", item.key))


def _free_key(key: str, taken: set[str]) -> str:
    """Map the key of an image to one without a dot in its last part, and with a number where it is taken."""
    folder, name = posixpath.split(without_suffix(key))
    plain = posixpath.join(folder, name.replace(".", "_"))
    number, free = 1, plain
    while free in taken:
        number += 1
        free = f"{plain}-{number}"
    return free


def _about(item: Encoded, space: Space) -> dict[str, Any]:
    return {
        "key": item.key,
        "original_size": item.frame.original,
        "bucket": item.frame.bucket,
        "resized": item.frame.resized,
        "crop": item.frame.crop,
        "scale": space.scale,
        "shift": space.shift,
        "latent_space": space.latent_space,
        "weights_digest": space.weights_digest,
    }


WEBDATASET = Tars("webdataset", frozenset({"mode"}))
WEBDATASET_SAMPLE = Tars("webdataset-sample", frozenset({"sample"}))
WEBDATASET_MOMENTS = Tars("webdataset-moments", frozenset({"moments"}))
LAT = Tars("lat", frozenset({"mode"}), compressed=True)
