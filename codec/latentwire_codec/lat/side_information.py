# SPDX-License-Identifier: Apache-2.0
"""Integers of one image's latents -> the weights by which neighbours predict each integer, sent with the image.

How far neighbours predict each other differs from VAE to VAE and from image to image, so these weights are fitted to
the image at hand. They take 9 bytes for each channel, which pay for themselves from a few hundred places on. On smaller
maps, and in latents that are vectors, all channels can share 9 bytes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentwire_codec.compiled import compiled
from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import MEAN_TERMS, SCALE_BITS, nearest_fourth_root
from latentwire_codec.lat.traversal import KINDS, Plan, plan_of
from latentwire_core.errors import Malformed

Reals = npt.NDArray[np.float64]

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
        flat = np.ascontiguousarray(integers.reshape(channels, -1))
        group = channels if shared else 1
        means, deviations, weights = (np.zeros((channels // group, *each)) for each in ((), (), (2, MEAN_TERMS)))
        features, *room = (np.empty((group * height * width, *each)) for each in ((MEAN_TERMS,), (), ()))
        _fit(flat, plan_of(height, width), group, (means, deviations, weights), features, *room)
        quarters = np.clip(np.rint(4 * np.log2(np.maximum(deviations * (1 << SCALE_BITS), 1))), 0, LARGEST_QUARTER)
        sent = np.clip(np.rint(weights * (1 << SENT_BITS)), -LARGEST_SENT, LARGEST_SENT)
        every = (np.repeat(each.astype(np.int64), group, axis=0) for each in (means, quarters, sent))
        return cls(*every)

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


@compiled
def _fit(
    integers: Integers,
    plan: Plan,
    group: int,
    found: tuple[Reals, Reals, Reals],
    features: Reals,
    targets: Reals,
    errors: Reals,
) -> None:
    """Write the mean, the deviation and the weights of each group of channels: (G,), (G,), (G, 2, 3).

    `features` (n, 3), `targets` and `errors` (n,) are room for the places of a group.
    """
    means, deviations, weights = found
    count = group * integers.shape[1]
    before = 0.0
    for index in range(len(means)):
        begin, end = index * group, (index + 1) * group
        # Sums of whole numbers, which floats of 64 bits hold exactly.
        total, away = 0.0, 0.0
        for channel in range(begin, end):
            for at in range(integers.shape[1]):
                total += integers[channel, at]
        mean = min(max(np.rint(total / count), -LARGEST_MEAN), LARGEST_MEAN)
        for channel in range(begin, end):
            for at in range(integers.shape[1]):
                away += abs(integers[channel, at] - mean)
        means[index], deviations[index] = mean, away / count
        # A constant needs no weights.
        for cross in range(2 if away else 0):
            taken = 0
            for channel in range(begin, end):
                for kind in range(1 + cross, len(KINDS), 2):
                    for at in range(plan.begins[kind], plan.begins[kind + 1]):
                        i, j, k, m = plan.neighbours[at]
                        place = plan.places[at]
                        features[taken, 0] = (integers[channel, i] - mean) + (integers[channel, j] - mean)
                        features[taken, 1] = (integers[channel, k] - mean) + (integers[channel, m] - mean)
                        features[taken, 2] = 0.0
                        if channel > 0:
                            features[taken, 2] = integers[channel - 1, place] - (before if channel == begin else mean)
                        targets[taken] = integers[channel, place] - mean
                        taken += 1
            if taken:
                chosen = _fit_weights(taken, features, targets, errors)
                weights[index, cross, 0], weights[index, cross, 1], weights[index, cross, 2] = chosen
        before = mean


@compiled
def _fit_weights(count: int, features: Reals, targets: Reals, errors: Reals) -> tuple[float, float, float]:
    """Map the first features (n, 3) and targets (n,) to weights of least absolute errors; use `errors` (n,) as room."""
    first = second = third = 0.0
    typical = 0.0
    for turn in range(ROUNDS):
        a = b = c = d = e = f = p = q = r = 0.0
        for at in range(count):
            x, y, z, target = features[at, 0], features[at, 1], features[at, 2], targets[at]
            importance = 1.0
            if turn:
                importance = 1 / (abs(target - (first * x + second * y + third * z)) + typical + 0.3)
            u, v, w = x * importance, y * importance, z * importance
            a, b, c, d, e, f = a + u * x, b + u * y, c + u * z, d + v * y, e + v * z, f + w * z
            p, q, r = p + u * target, q + v * target, r + w * target
        first, second, third = _solve(_ridged(a), b, c, _ridged(d), e, _ridged(f), p, q, r)
        if turn < ROUNDS - 1:
            for at in range(count):
                x, y, z = features[at, 0], features[at, 1], features[at, 2]
                errors[at] = abs(targets[at] - (first * x + second * y + third * z))
            typical = _median(errors, count)
    return first, second, third


@compiled
def _ridged(square: float) -> float:
    return square + (1e-6 * square + 1e-6)


@compiled
def _solve(
    a: float, b: float, c: float, d: float, e: float, f: float, p: float, q: float, r: float
) -> tuple[float, float, float]:
    """Solve ((a, b, c), (b, d, e), (c, e, f)) x = (p, q, r), a positive definite system, by Cholesky's way."""
    below_b, below_c = b / a, c / a
    d -= below_b * b
    e -= below_b * c
    q -= below_b * p
    below_e = e / d
    f -= below_c * c + below_e * e
    z = (r - below_c * p - below_e * q) / f
    y = (q - e * z) / d
    return (p - b * y - c * z) / a, y, z


@compiled
def _median(values: Reals, count: int) -> float:
    """Return the median of the first values, as numpy does; the values change places."""
    middle = count // 2
    begin, end = 0, count - 1
    while begin < end:
        pivot = values[(begin + end) // 2]
        left, right = begin, end
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left, right = left + 1, right - 1
        if middle <= right:
            end = right
        elif middle >= left:
            begin = left
        else:
            break
    above = float(values[middle])
    if count % 2:
        return above
    below = float(values[0])
    for at in range(1, middle):
        below = max(below, float(values[at]))
    return (below + above) / 2
