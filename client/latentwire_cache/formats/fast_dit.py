# SPDX-License-Identifier: Apache-2.0
"""Encoded images -> fast-DiT's npy files, one of latents and one of the label for each image, paired by sorted names.

Source: chuanyangjin/fast-DiT (0ddbd64), `extract_features.py` and `train.py`.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from latentwire_cache.formats.content import cast, npy
from latentwire_cache.formats.encoded import Encoded, File, NoIndex, Shards, Space, drawn, label_of, same_shape, scaled

FEATURES, LABELS = "imagenet256_features", "imagenet256_labels"
"""The folders have these names for every resolution."""


class FastDiT(Shards, NoIndex):
    """Scaled samples, float32 (1,C,h,w), and labels, int64 (1,), under the number of the shard and the place in it."""

    name = "fast-dit"
    rule = "imagenet"
    needs = frozenset({"sample", "label"})

    def files(self, items: Sequence[Encoded], space: Space, shard: int) -> Iterator[File]:
        """Yield two files for each image."""
        same_shape(items, self.name)
        for place, item in enumerate(items):
            name = f"{shard:06d}-{place:06d}.npy"
            yield f"{FEATURES}/{name}", npy(cast(scaled(drawn(item), space), "float32", item.key)[None])
            yield f"{LABELS}/{name}", npy(np.array([label_of(item, self.name)], np.int64))
