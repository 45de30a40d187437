# SPDX-License-Identifier: Apache-2.0
"""Encoded images of any size, made by code."""

from dataclasses import replace
from typing import Any

import numpy as np

from latentwire_cache.buckets import size_rule
from latentwire_cache.formats import Encoded, Space

SPACE = Space((0.5,), (0.25,), "sd1", "ab" * 32, "float32")


def encoded(
    key: str = "folder/photo.jpg",
    *,
    rule: str = "kohya",
    image: tuple[int, int] = (1400, 900),
    resolution: int = 512,
    channels: int = 4,
    factor: int = 8,
    flip: bool = False,
    **fields: Any,
) -> Encoded:
    """Return an image with moments and a sample drawn from a seed of its key."""
    frame = size_rule(rule, resolution=(resolution, resolution), multiple=factor).frame(image, 1)
    random = np.random.default_rng(list(key.encode()))
    shape = (channels, frame.bucket[1] // factor, frame.bucket[0] // factor)
    mean, logvar, noise = (random.standard_normal(shape).astype(np.float32) for _ in range(3))
    sample = mean + np.exp(logvar / 2) * noise
    one = Encoded(key, f"/images/{key}", frame, mean, logvar, sample)
    mirrored = replace(one, mean=-mean, sample=-sample) if flip else None
    return replace(one, flipped=mirrored, **fields)
