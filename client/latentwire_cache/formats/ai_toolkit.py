# SPDX-License-Identifier: Apache-2.0
"""Encoded images -> the safetensors files of ai-toolkit, in the folder `_latent_cache` beside each image.

    photo.jpg -> _latent_cache/photo_<hash of name, sizes, crop and space>.safetensors

ai-toolkit flips an image before it cuts it, and this package after: where the surplus of the width is odd, the flipped
copy is one pixel beside ai-toolkit's own.

Source: ostris/ai-toolkit (27a03a9), `toolkit/dataloader_mixins.py` (LatentCachingFileItemDTOMixin).
"""

import base64
import hashlib
import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from latentwire_cache.buckets.frame import Frame
from latentwire_cache.formats.content import cast, without_suffix
from latentwire_cache.formats.encoded import Encoded, File, NoIndex, Space, distinct, drawn, scaled
from latentwire_core.files import to_safetensors

LATENT_VERSION = 1


@dataclass(frozen=True)
class AiToolkit(NoIndex):
    """The files of one latent space: scaled samples, in the dtype of the VAE; a flipped image has a file of its own.

    Attributes:
        name: a key of `FORMATS`.
        space_version: the name of the space in ai-toolkit, a part of the hash.
    """

    name: str
    space_version: str
    rule: str = "ai-toolkit"
    needs: frozenset[str] = frozenset({"sample"})
    per_item: bool = True

    def paths(self, key: str, frame: Frame) -> tuple[str, ...]:
        """Return the path of the image's file, and that of the flipped image."""
        return self._path(key, self._described(key, frame)), self._path(key, self._described(key, frame, flip=True))

    def files(self, items: Sequence[Encoded], space: Space, shard: int) -> Iterator[File]:
        """Yield a safetensors file for each image, and one for each flipped image."""
        return distinct(each for item in items for each in self._of(item, space))

    def _of(self, item: Encoded, space: Space) -> Iterator[tuple[str, File]]:
        for each in (item, item.flipped):
            if each is not None:
                described = self._described(item.key, item.frame, flip=each is not item)
                latent = cast(scaled(drawn(each), space), space.dtype, item.key)
                # A value that is no text is JSON, as ai-toolkit's own get_meta_for_safetensors makes it.
                metadata = {
                    name: each if isinstance(each, str) else json.dumps(each) for name, each in described.items()
                }
                yield (
                    item.key,
                    (self._path(item.key, described), to_safetensors({"latent": latent}, {**metadata, "format": "pt"})),
                )

    def _described(self, key: str, frame: Frame, *, flip: bool = False) -> dict[str, Any]:
        return {
            "filename": posixpath.basename(key),
            "scale_to_width": frame.resized[0],
            "scale_to_height": frame.resized[1],
            "crop_x": frame.crop[0],
            "crop_y": frame.crop[1],
            "crop_width": frame.bucket[0],
            "crop_height": frame.bucket[1],
            "latent_space_version": self.space_version,
            "latent_version": LATENT_VERSION,
        } | ({"flip_x": True} if flip else {})

    def _path(self, key: str, described: dict[str, Any]) -> str:
        digest = hashlib.md5(json.dumps(described, sort_keys=True).encode(), usedforsecurity=False).digest()
        text = base64.urlsafe_b64encode(digest).decode().replace("=", "")
        folder, name = posixpath.split(without_suffix(key))
        return posixpath.join(folder, "_latent_cache", f"{name}_{text}.safetensors")


SDXL = AiToolkit("ai-toolkit-sdxl", "sdxl")
SD3 = AiToolkit("ai-toolkit-sd3", "sd3")
FLUX = AiToolkit("ai-toolkit-flux", "flux1")
