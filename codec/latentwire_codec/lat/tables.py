# SPDX-License-Identifier: Apache-2.0
"""A file of statistics of all latents, and one image's side information -> the context model of this image.

One file, `weights/prior.safetensors`, serves the latents of any VAE: since the weights of the mean are sent with each
image, tables fitted to one VAE's latents were not better than common ones. `python -m latentwire_train.dev tables`
writes it.
"""

import zlib
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import (
    FREQUENCY_BITS,
    MEAN_BITS,
    MEAN_TERMS,
    SCALE_TERMS,
    SYMBOLS,
    TABLES,
    WEIGHT_BITS,
    ContextModel,
)
from latentwire_codec.lat.side_information import DEVIATIONS, SENT_BITS, SideInformation
from latentwire_codec.lat.traversal import KINDS
from latentwire_core.errors import CheckpointError

FILE = Path(__file__).parents[1] / "weights" / "prior.safetensors"
ROWS = 2
"""The first channel, and all others, which refer to the one before."""
LARGEST_WEIGHT = 1 << 18
"""With larger weights a sum could leave 64 bits."""
LARGEST_FLOOR = 1 << 30
SPREAD_BITS = 8
LARGEST_SPREAD = 1 << 16


@dataclass(frozen=True)
class Tables:
    """How errors around tell the scale, and how integers are distributed about their means.

    Attributes:
        scale_weights: (ROWS, kinds, 7), as in `ContextModel`.
        scale_floor: (ROWS, kinds), as in `ContextModel`.
        scale_spread: (ROWS, kinds), 2^-8 of a channel's mean absolute deviation; at least 0.
        frequencies: (TABLES, SYMBOLS), as in `ContextModel`.

    Raises:
        ValueError: an array has another shape, or a value out of its range.
    """

    scale_weights: Integers
    scale_floor: Integers
    scale_spread: Integers
    frequencies: Integers

    def __post_init__(self) -> None:
        """Check shapes and ranges: a file may hold anything."""
        kinds = len(KINDS)
        for name, shape, limit in (
            ("scale_weights", (ROWS, kinds, SCALE_TERMS), LARGEST_WEIGHT),
            ("scale_floor", (ROWS, kinds), LARGEST_FLOOR),
            ("scale_spread", (ROWS, kinds), LARGEST_SPREAD),
            ("frequencies", (TABLES, SYMBOLS), 1 << FREQUENCY_BITS),
        ):
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"{name} has the shape {array.shape}; {shape} is needed")
            if array.min() < 0 or array.max() > limit:
                raise ValueError(f"{name} is not all within 0..{limit}")
        if self.frequencies.min() < 1 or (self.frequencies.sum(axis=1) != 1 << FREQUENCY_BITS).any():
            raise ValueError(f"the frequencies are not all at least 1, in sums of {1 << FREQUENCY_BITS}")

    @cached_property
    def table_id(self) -> int:
        """CRC-32 over all integers, as int32, little-endian, in the order of the attributes."""
        return zlib.crc32(b"".join(getattr(self, field.name).astype("<i4").tobytes() for field in fields(self)))

    def context_model(self, side_information: SideInformation) -> ContextModel:
        """Return the context model of an image's integers."""
        channels, kinds = len(side_information.means), len(KINDS)
        weights = np.zeros((channels, kinds, MEAN_TERMS), np.int64)
        weights[:, 1:] = np.tile(side_information.weights, (1, kinds // 2, 1))
        means = side_information.means
        before = np.concatenate([[0], means[:-1]])
        # The means are subtracted before weighing, and added after it: together a bias.
        weighed = (weights * np.stack([2 * means, 2 * means, before], axis=1)[:, None]).sum(axis=2)
        bias = (means[:, None] << SENT_BITS) - weighed
        shift = MEAN_BITS + WEIGHT_BITS - SENT_BITS
        row = np.minimum(np.arange(channels), ROWS - 1)
        deviations = DEVIATIONS[side_information.quarters][:, None]
        return ContextModel(
            mean_weights=weights << shift,
            mean_bias=bias << shift,
            scale_weights=self.scale_weights[row],
            scale_floor=self.scale_floor[row] + (self.scale_spread[row] * deviations << WEIGHT_BITS - SPREAD_BITS),
            frequencies=self.frequencies,
        )

    def to_bytes(self) -> bytes:
        """Return the contents of the file."""
        return save({field.name: getattr(self, field.name).astype(np.int32) for field in fields(self)})


def load_tables(path: Path) -> Tables:
    """Map a file to the tables in it; raises CheckpointError where it cannot be read, or holds no tables."""
    try:
        return Tables(**{name: array.astype(np.int64) for name, array in load_file(path).items()})
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds no tables of the entropy coder: {error!r}") from error


@lru_cache(maxsize=1)
def common_tables() -> Tables:
    """Return the tables that come with the package, for latents of any VAE."""
    return load_tables(FILE)
