# SPDX-License-Identifier: Apache-2.0
"""Tars of `.lat` payloads (the format `lat`) -> a torch data set of latents.

data = lat_dataset(sorted(glob("cache/lat/*.tar")), scaled=True, shuffle=1000)
for latent, sample in DataLoader(data, batch_size=None, num_workers=4): ...
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from latentwire_codec.lat.payload import decompress_latents

if TYPE_CHECKING:
    import webdataset

LATENT, FLIPPED = "latent.lat", "latent_flip.lat"


def lat_dataset(
    tars: str | Sequence[str], *, scaled: bool = False, flip: bool = False, shuffle: int = 0
) -> "webdataset.WebDataset":
    """Map tars to an iterable data set for torch, split over nodes and workers by tars.

    Each sample is a pair: the latents, float32 (C,h,w), and the sample's other fields: `__key__`, `json` (a dict),
    `txt` (the caption) and `cls` (the label), where the tar has them.

    Args:
        tars: paths, URLs or a pattern of webdataset.
        scaled: whether the latents are (raw - shift) * scale; else raw.
        flip: whether each image comes flipped half of the time, where the tars hold flipped latents.
        shuffle: how many samples are shuffled at a time; 0: tars and samples come in order.

    Raises:
        BitstreamError: on reading, a payload is damaged.
    """
    import webdataset

    data = webdataset.WebDataset(
        tars,
        shardshuffle=len(tars) if shuffle and not isinstance(tars, str) else False,
        nodesplitter=webdataset.split_by_node,
        # More workers than tars is no fault: the surplus has nothing to do.
        empty_check=False,
    )
    if shuffle:
        data = data.shuffle(shuffle)
    return data.map(partial(read_lat, scaled=scaled, flip=flip))


def read_lat(
    sample: Mapping[str, Any], *, scaled: bool = False, flip: bool = False
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Map the fields of a sample, bytes each, to its latents and its other fields; see `lat_dataset`."""
    about = json.loads(sample["json"])
    chosen = FLIPPED if flip and FLIPPED in sample and torch.rand(()) < 0.5 else LATENT
    latents = torch.from_numpy(decompress_latents(sample[chosen])[0]).float()
    if scaled:
        scale, shift = (torch.tensor(about[name]).reshape(-1, 1, 1) for name in ("scale", "shift"))
        latents = (latents - shift) * scale
    others: dict[str, Any] = {"__key__": sample["__key__"], "json": about}
    if "txt" in sample:
        others["txt"] = sample["txt"].decode()
    if "cls" in sample:
        others["cls"] = int(sample["cls"])
    return latents, others
