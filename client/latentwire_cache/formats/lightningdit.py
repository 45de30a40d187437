# SPDX-License-Identifier: Apache-2.0
"""Encoded images -> the safetensors shards of LightningDiT, and `latents_stats.pt`.

Source: hustvl/LightningDiT (2725fed), `datasets/img_latent_dataset.py` and `extract_features.py`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from latentwire_cache.formats.content import cast, pt
from latentwire_cache.formats.encoded import Encoded, File, Note, Shards, Space, drawn, label_of, same_shape
from latentwire_core.files import to_safetensors


class LightningDiT(Shards):
    """Shards of raw samples, the flipped ones beside them, and labels; each access takes one of the two.

    `latents_stats.pt` holds the mean and the standard deviation of all samples, where LightningDiT itself draws 10,000.
    """

    name = "lightningdit"
    rule = "imagenet"
    needs = frozenset({"sample", "flip", "label"})

    def files(self, items: Sequence[Encoded], space: Space, shard: int) -> Iterator[File]:
        """Yield a shard: latents and latents_flip, float32 (N,C,h,w), and labels, int64 (N,)."""
        same_shape(items, self.name)
        arrays: dict[str, npt.NDArray[Any]] = {
            "latents": _stacked(items),
            "latents_flip": _stacked([_flipped(item) for item in items]),
            "labels": np.array([label_of(item, self.name) for item in items], np.int64),
        }
        metadata = {"total_size": str(len(items)), "dtype": "torch.float32", "device": "cpu"}
        yield f"latents_rank00_shard{shard:06d}.safetensors", to_safetensors(arrays, metadata)

    def note(self, items: Sequence[Encoded], space: Space, shard: int) -> Note:
        """Return the sums of each channel over the unflipped samples."""
        values = np.moveaxis(_stacked(items), 1, 0).astype(np.float64).reshape(items[0].mean.shape[0], -1)
        return {
            "count": values.shape[1],
            "sum": values.sum(axis=1).tolist(),
            "sum_of_squares": np.square(values).sum(axis=1).tolist(),
        }

    def index(self, notes: Sequence[Note]) -> Iterator[File]:
        """Yield `latents_stats.pt`: mean and std, float32 (1,C,1,1)."""
        if not notes:
            return
        count = sum(note["count"] for note in notes)
        total, squares = (np.sum([note[name] for note in notes], axis=0) for name in ("sum", "sum_of_squares"))
        mean = total / count
        # torch's std, which LightningDiT takes, divides by one less.
        std = np.sqrt(np.maximum(squares - count * mean**2, 0) / max(count - 1, 1))
        shaped = {"mean": mean, "std": std}
        yield (
            "latents_stats.pt",
            pt({name: each.astype(np.float32).reshape(1, -1, 1, 1) for name, each in shaped.items()}),
        )


def _stacked(items: Sequence[Encoded]) -> npt.NDArray[np.float32]:
    return np.stack([cast(drawn(item), "float32", item.key) for item in items])


def _flipped(item: Encoded) -> Encoded:
    if item.flipped is None:
        raise ValueError(f"{item.key} has no flipped copy, which lightningdit needs; plan with --flip")
    return item.flipped
