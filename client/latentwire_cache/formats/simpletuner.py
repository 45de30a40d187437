# SPDX-License-Identifier: Apache-2.0
"""Encoded images -> SimpleTuner's `.pt` files, below `cache_dir_vae`.

    folder/photo.jpg -> folder/<SHA-256 of "photo">.pt

SimpleTuner makes the JSON files of its buckets itself, in the scan of the images.

Source: bghira/SimpleTuner (bc8e6ab), `simpletuner/helpers/caching/vae.py` (generate_vae_cache_filename).
"""

import hashlib
import posixpath
from collections.abc import Iterator, Sequence

from latentwire_cache.buckets.frame import Frame
from latentwire_cache.formats.content import cast, pt, without_suffix
from latentwire_cache.formats.encoded import Encoded, File, NoIndex, Space, distinct, drawn


class SimpleTuner(NoIndex):
    """Raw samples of models with an AutoencoderKL, in the dtype of the VAE."""

    name = "simpletuner"
    rule = "simpletuner"
    needs = frozenset({"sample"})
    per_item = True

    def paths(self, key: str, frame: Frame) -> tuple[str, ...]:
        """Return the path of the image's file."""
        folder, name = posixpath.split(without_suffix(key))
        return (posixpath.join(folder, f"{hashlib.sha256(name.encode()).hexdigest()}.pt"),)

    def files(self, items: Sequence[Encoded], space: Space, shard: int) -> Iterator[File]:
        """Yield a file for each image: one tensor (C,h,w)."""
        return distinct(
            (item.key, (self.paths(item.key, item.frame)[0], pt(cast(drawn(item), space.dtype, item.key))))
            for item in items
        )
