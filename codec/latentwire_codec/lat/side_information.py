# SPDX-License-Identifier: Apache-2.0
"""Integers of one image's latents -> the weights by which neighbours predict each integer, sent with the image.

How far neighbours predict each other differs from VAE to VAE and from image to image, so these weights are fitted to
the image at hand. They take 9 bytes for each channel, which pay for themselves from a few hundred places on. On smaller
maps, and in latents that are vectors, all channels can share 9 bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import MEAN_TERMS, SCALE_BITS, nearest_fourth_root
from latentwire_codec.lat.traversal import Phase, phases
from latentwire_core.errors import Malformed

Reals = npt.NDArray[np.floating]

SENT_BITS = 6
"""A sent weight is in 64ths."""
LARGEST_MEAN = (1 << 15) - 1
LARGEST_SENT = 127
"""The largest weight, in 64ths; the smallest is its opposite."""
CHANNEL_BYTES = 3 + 2 * MEAN_TERMS
ROUNDS = 3
"""Rounds of reweighting, so that a few large errors do not decide."""
LARGEST_QUARTER = 127
DEVIATIONS = np.array([nearest_fourth_root(1 << quarters) for quarters in range(LARGEST_QUARTER + 1)])
"""Mean absolute deviations in 1024ths of a step: a sent byte counts quarter octaves."""


@dataclass(frozen=True)
class SideInformation:
    """The mean, the deviation and the weights of each channel.

    Attributes:
        means: (C,), the mean of each channel, in steps.
        quarters: (C,), index of the mean absolute deviation in `DEVIATIONS`.
        weights: (C, 2, 3), in the diagonal and in the cross phases; in 64ths. They weigh the sum of the first pair of
            neighbours, the sum of the second pair, and the channel before, each less its mean.
    """

    means: Integers
    quarters: Integers
    weights: Integers

    @classmethod
    def fit(cls, integers: Integers, *, shared: bool = False) -> "SideInformation":
        """Fit weights to integers (C,h,w): to each channel its own, or the same to all."""
        channels, height, width = integers.shape
        axis, groups = (None, [range(channels)]) if shared else (1, [range(each, each + 1) for each in range(channels)])
        flat = integers.reshape(channels, -1).astype(np.float64)
        means = np.broadcast_to(np.clip(np.rint(flat.mean(axis=axis)), -LARGEST_MEAN, LARGEST_MEAN), channels)
        centred = flat - means[:, None]
        deviations = np.broadcast_to(np.abs(centred).mean(axis=axis), channels)
        quarters = np.clip(np.rint(4 * np.log2(np.maximum(deviations * (1 << SCALE_BITS), 1))), 0, LARGEST_QUARTER)
        outside = phases(height, width)[1:]
        plans = [[phase for phase in outside if phase.kind % 2 == odd] for odd in (1, 0)]
        weights = [[_fit_weights(centred, group, plan) for plan in plans] for group in groups]
        every = np.broadcast_to(np.array(weights, np.int64), (channels, 2, MEAN_TERMS))
        return cls(means.astype(np.int64), quarters.astype(np.int64), every)

    def to_bytes(self) -> bytes:
        """Return for each channel its mean as int16, little-endian, its quarters, and its weights as int8.

        Where all channels have the same 9 bytes, the bytes are written once.
        """
        rows = np.empty((len(self.means), CHANNEL_BYTES), np.uint8)
        rows[:, 0], rows[:, 1] = self.means & 255, self.means >> 8 & 255
        rows[:, 2] = self.quarters
        rows[:, 3:] = self.weights.reshape(len(self.means), -1) & 255
        return rows[: 1 if (rows == rows[0]).all() else None].tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, channels: int) -> "SideInformation":
        """Read the bytes that `to_bytes` wrote.

        Raises:
            Malformed: there are not 9 bytes for each channel or for all, or a deviation is out of range.
        """
        if len(data) not in (CHANNEL_BYTES, CHANNEL_BYTES * channels):
            raise Malformed(
                f"there are {len(data)} bytes of weights; {CHANNEL_BYTES} are needed, or {CHANNEL_BYTES} for each of "
                f"{channels} channels"
            )
        rows = np.frombuffer(data, np.int8).reshape(-1, CHANNEL_BYTES).astype(np.int64)
        rows = np.broadcast_to(rows, (channels, CHANNEL_BYTES))
        if rows[:, 2].min() < 0:
            raise Malformed(f"the deviation of a channel is above {LARGEST_QUARTER} quarter octaves")
        return cls((rows[:, 0] & 255) + (rows[:, 1] << 8), rows[:, 2], rows[:, 3:].reshape(channels, 2, MEAN_TERMS))


def _fit_weights(centred: Reals, channels: range, plan: Sequence[Phase]) -> Integers:
    """Fit the weights of some channels in some of the phases, by least absolute errors."""
    rows = [np.empty((MEAN_TERMS, 0))]
    targets = [np.empty(0)]
    for channel in channels:
        for phase in plan:
            a, b, c, d = centred[channel][phase.neighbours]
            before = centred[channel - 1][phase.places] if channel else np.zeros(len(phase.places))
            rows.append(np.stack([a + b, c + d, before]))
            targets.append(centred[channel][phase.places])
    features, target = np.concatenate(rows, axis=1), np.concatenate(targets)
    weights: Reals = np.zeros(MEAN_TERMS)
    importance: Reals = np.ones(len(target))
    for _ in range(ROUNDS if len(target) else 0):
        gram = features * importance @ features.T
        gram += np.diag(1e-6 * np.diag(gram) + 1e-6)
        weights = np.linalg.solve(gram, features * importance @ target)
        errors: Reals = np.abs(target - weights @ features)
        importance = 1 / (errors + float(np.median(errors)) + 0.3)
    return np.clip(np.rint(weights * (1 << SENT_BITS)), -LARGEST_SENT, LARGEST_SENT).astype(np.int64)
