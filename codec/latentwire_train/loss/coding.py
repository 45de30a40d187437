# SPDX-License-Identifier: Apache-2.0
"""Latents and steps -> what the `.lat` coder makes of them: the latents that it gives back, and their bits.

All integers of a crop are known in training. So every place is computed at once, from integers as hard as the coder's
own; what has no slope is bridged by a slope:

    r = z / s     q = the nearest integer, or the next one where that is worth its bits (RDOQ)     z' = s (q - pull)
    e = q - mean  scale = what the errors around let expect     bits = 16 - log2 of the frequency in the scale's table

    d z' / d z = g                        g = 1 where r is within half a step of a threshold of the quantizer, else 0
    d bits / d r = g * slope              slope: the bits that the neighbouring integer would take more
    d bits / d mean = minus the mean of both slopes, and the mean is linear in g * r of the neighbours

g is the slope of the quantizer, smoothed by a box of one step. Without a dead zone it is 1 everywhere, the usual
straight-through estimator; with one, nearly all latents of low rates lie where the quantizer is flat, and the usual
estimator makes weak channels grow. Uniform noise in place of integers asks for contexts that have seen noise: the rate
is then not the coder's. The slopes through the scale are left out: where scales are calibrated they are 0 on average.

Source: noise against rounding, Minnen and Singh, Channel-wise autoregressive entropy models (arXiv 2007.08739); the
mismatch, On uniform scalar quantization for learned image compression (arXiv 2309.17051).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from latentwire_codec.lat import context
from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import ESCAPE, FRACTIONS, LARGEST, LEVELS, MEAN_BITS, SCALE_BITS, SYMBOLS
from latentwire_codec.lat.quantizer import LAMBDA
from latentwire_codec.lat.side_information import DEVIATIONS, LARGEST_QUARTER, LARGEST_SENT, SENT_BITS
from latentwire_codec.lat.tables import ROWS, SPREAD_BITS, Tables, common_tables
from latentwire_codec.lat.traversal import NEIGHBOURS, phases

CHOICES = 4
"""Rounds of the choice between two integers, each with the contexts of the round before; the coder goes place by place.
With 2 rounds the bits of coarse steps are a tenth too many."""
ROUNDS = 2
"""Rounds of reweighting the weights of the mean."""
BYTE = 8
RIDGE = 1e-6


@dataclass(frozen=True)
class Coding:
    """What the coder makes of a batch of latents; gradients flow to the latents from both.

    Attributes:
        latents: what the decoder is given, (B,C,h,w).
        bits: what the entropy coder spends on each image, (B,): without the header and the side information.
    """

    latents: Tensor
    bits: Tensor


@dataclass(frozen=True)
class _Group:
    """The places of the diagonal or of the cross phases, (n,), and the places of their neighbours, (4n,)."""

    places: Tensor
    neighbours: Tensor


@dataclass(frozen=True)
class _Prediction:
    """The mean of each channel (B,C,1), the weights of both groups (B,C,3) each, and the deviations (B,C,1)."""

    centre: Tensor
    weights: list[Tensor]
    deviations: Tensor


@dataclass(frozen=True)
class _Contexts:
    """How each integer (B,C,N) is coded: see `latentwire_codec.lat.context.Contexts`; wide scales have no table."""

    table: Tensor
    base: Tensor
    sign: Tensor
    mean: Tensor
    scale: Tensor


class DifferentiableCoder(nn.Module):
    """Maps latents (B,C,h,w) and the step of each image to a `Coding`.

    All computation is in float32, under autocast too. The module has no weights to train.

    Args:
        shape: (C,h,w) of the latents of one image.
        tables: the statistics of the entropy coder; None: the ones of this package.
    """

    scale_weights: Tensor
    scale_floor: Tensor
    scale_spread: Tensor
    bits_table: Tensor
    thresholds: Tensor
    deviations: Tensor
    order: Tensor

    def __init__(self, shape: tuple[int, int, int], tables: Tables | None = None) -> None:
        super().__init__()
        tables = tables or common_tables()
        channels, *size = shape
        self._size = (size[0], size[1])
        seed, *later = phases(*self._size)
        kinds = [np.zeros(len(seed.places), np.int64)]
        places = [seed.places]
        self._groups: list[tuple[str, str]] = []
        for odd, name in ((1, "diagonal"), (0, "cross")):
            group = [phase for phase in later if phase.kind % 2 == odd]
            if not group:
                continue
            places += [phase.places for phase in group]
            kinds += [np.full(len(phase.places), phase.kind) for phase in group]
            neighbours = np.concatenate([phase.neighbours for phase in group], axis=1)
            self._index(f"{name}_places", np.concatenate([phase.places for phase in group]))
            self._index(f"{name}_neighbours", neighbours.reshape(-1))
            self._groups.append((f"{name}_places", f"{name}_neighbours"))
        self._seeds = len(seed.places)
        order = np.concatenate(places).argsort()
        self._index("order", order)
        kind = np.concatenate(kinds)[order]
        row = np.minimum(np.arange(channels), ROWS - 1)
        # In steps, for each place: (C,7,N), (C,N), (C,N).
        one = 1 << SCALE_BITS + context.WEIGHT_BITS
        self._floats("scale_weights", tables.scale_weights[:, kind].transpose(0, 2, 1)[row] / (one >> MEAN_BITS))
        self._floats("scale_floor", tables.scale_floor[:, kind][row] / one)
        self._floats("scale_spread", tables.scale_spread[:, kind][row] / (1 << SPREAD_BITS))
        self._floats("bits_table", context.FREQUENCY_BITS - np.log2(tables.frequencies).reshape(-1))
        self._floats("thresholds", context.THRESHOLDS[: LEVELS - 1] / (1 << SCALE_BITS))
        self._floats("deviations", DEVIATIONS / (1 << SCALE_BITS))

    def forward(self, latents: Tensor, steps: Tensor) -> Coding:
        """Map raw latents (B,C,h,w) and the step of each image (B,), above 0, to what the coder makes of them."""
        with torch.autocast(latents.device.type, enabled=False):
            steps = steps.float()[:, None, None]
            real = latents.float().flatten(2) / steps
            hard = self._choose(real.detach())
            # The values stay the hard ones; the differences have gradients only.
            moved = hard.gate * (real - real.detach())
            integers = hard.integers + moved
            mean = self._means(integers, hard.prediction)
            slopes = (hard.slope * integers - hard.mean_slope * mean).sum((1, 2))
            bits = hard.bits + slopes - slopes.detach()
            decoded = (hard.integers - hard.offset * hard.away + moved) * steps
            return Coding(decoded.unflatten(2, self._size), bits)

    @torch.no_grad()
    def _choose(self, real: Tensor) -> "_Hard":
        """Map latents in steps (B,C,N) to the integers that the coder takes, and to the slopes at these integers."""
        nearest = real.round()
        other = nearest + torch.where(real < nearest, -1.0, 1.0)
        lost = (real - other).square() - (real - nearest).square()
        prediction = self._fit(nearest)
        integers = nearest
        for _ in range(CHOICES):
            found = self._contexts(integers, prediction)
            saved = self._bits(nearest, found) - self._bits(other, found)
            integers = torch.where(LAMBDA * saved > lost, other, nearest)
        found = self._contexts(integers, prediction)
        bits = self._bits(integers, found)
        up, down = (self._bits(integers + by, found) - bits for by in (1, -1))
        above = (integers + 0.5 + LAMBDA / 2 * up).minimum(integers + 1)
        below = (integers - 0.5 - LAMBDA / 2 * down).maximum(integers - 1)
        to_above, to_below = (above - real).abs(), (real - below).abs()
        away = (integers - found.mean).clamp(-1, 1)
        energy = away.square().sum((1, 2), keepdim=True).clamp(min=1e-6)
        return _Hard(
            integers=integers,
            bits=bits.sum((1, 2)),
            prediction=prediction,
            gate=(torch.minimum(to_above, to_below) < 0.5).float(),
            slope=torch.where(to_above < to_below, up, -down),
            mean_slope=(up - down) / 2,
            away=away,
            offset=((away * (integers - real)).sum((1, 2), keepdim=True) / energy).clamp(0, 1),
        )

    def _fit(self, integers: Tensor) -> _Prediction:
        """Fit what is sent beside the integers (B,C,N), as `SideInformation.fit` does."""
        centre = integers.mean(2, keepdim=True).round()
        centred = integers - centre
        weights = []
        for group in self._both():
            features = self._features(centred, group)
            target = centred.index_select(2, group.places)
            importance = torch.ones_like(target)
            fitted = features[..., 0, :]
            for _ in range(ROUNDS):
                weighed = (features * importance[..., None]).mT
                gram = weighed @ features
                ridge = torch.diag_embed(RIDGE * torch.diagonal(gram, dim1=-2, dim2=-1) + RIDGE)
                fitted = torch.linalg.solve(gram + ridge, (weighed @ target[..., None]).squeeze(-1))
                errors = (target - (features @ fitted[..., None]).squeeze(-1)).abs()
                importance = 1 / (errors + errors.median(-1, keepdim=True).values + 0.3)
            weights.append((fitted * (1 << SENT_BITS)).round().clamp(-LARGEST_SENT, LARGEST_SENT) / (1 << SENT_BITS))
        thousandths = (centred.abs().mean(2, keepdim=True) * (1 << SCALE_BITS)).clamp(min=1)
        quarters = (4 * thousandths.log2()).round().clamp(0, LARGEST_QUARTER).long()
        return _Prediction(centre, weights, self.deviations[quarters])

    def _means(self, integers: Tensor, prediction: _Prediction) -> Tensor:
        """Map integers (B,C,N) to the means that are expected of them, in steps."""
        centred = integers - prediction.centre
        parts = [torch.zeros_like(centred[:, :, : self._seeds])]
        for group, weights in zip(self._both(), prediction.weights, strict=True):
            parts.append((self._features(centred, group) @ weights[..., None]).squeeze(-1))
        return torch.cat(parts, 2).index_select(2, self.order) + prediction.centre

    def _contexts(self, integers: Tensor, prediction: _Prediction) -> _Contexts:
        # Means are rounded down to sixteenths, as the coder's.
        mean = (self._means(integers, prediction) * (1 << MEAN_BITS)).floor()
        scale = self._scales(integers, mean / (1 << MEAN_BITS), prediction.deviations)
        base = ((mean + (1 << MEAN_BITS - 1)) / (1 << MEAN_BITS)).floor()
        part = mean.remainder(1 << MEAN_BITS)
        fraction = torch.minimum(part, (1 << MEAN_BITS) - part).long()
        level = torch.bucketize(scale, self.thresholds, right=True)
        return _Contexts(
            table=(level * FRACTIONS + fraction) * SYMBOLS,
            base=base,
            sign=torch.where(part < 1 << MEAN_BITS - 1, 1.0, -1.0),
            mean=mean / (1 << MEAN_BITS),
            scale=scale,
        )

    def _scales(self, integers: Tensor, mean: Tensor, deviations: Tensor) -> Tensor:
        """Map integers and their means (B,C,N) to the absolute errors that are expected, in steps."""
        errors = (integers - mean).abs()
        weights = self.scale_weights
        edges = (4 * integers - self._around(integers)).abs()
        total = self.scale_floor + self.scale_spread * deviations
        for term, plane in enumerate((errors, self._around(errors), edges), start=4):
            total = total + weights[:, term] * _before(plane)
        parts = [torch.zeros_like(integers[:, :, : self._seeds])]
        for group in self._both():
            near = weights.index_select(2, group.places)
            a, b, c, d = _at(integers, group.neighbours)
            first, second, third, fourth = _at(errors, group.neighbours)
            parts.append(
                near[:, 0] * ((a - b).abs() + (c - d).abs())
                + near[:, 1] * (a + b - c - d).abs()
                + near[:, 2] * (first + second)
                + near[:, 3] * (third + fourth)
            )
        return total + torch.cat(parts, 2).index_select(2, self.order)

    def _bits(self, integers: Tensor, found: _Contexts) -> Tensor:
        """Map integers (B,C,N), not only those that were chosen, to the bits that each takes in its context."""
        difference = (integers - found.base) * found.sign
        escaped = difference.abs() > LARGEST
        symbol = torch.where(escaped, float(ESCAPE), difference + LARGEST).long()
        # An escape is followed by a number of one byte for distances below 64, else of two.
        bits = self.bits_table[(found.table + symbol).clamp(max=len(self.bits_table) - 1)]
        bits = bits + BYTE * escaped + BYTE * (difference.abs() > LARGEST + 64)
        # Where the scale is large, the coder sends low bits as they are: nearly a Laplace distribution's bits.
        laplace = torch.log2(2 * found.scale) + (integers - found.mean).abs() / (found.scale * math.log(2))
        return torch.where(found.scale >= context.THRESHOLDS[LEVELS - 1] / (1 << SCALE_BITS), laplace, bits)

    def _features(self, centred: Tensor, group: _Group) -> Tensor:
        """Map integers less their channel's mean (B,C,N) to the features of the mean, (B,C,n,3)."""
        a, b, c, d = _at(centred, group.neighbours)
        return torch.stack([a + b, c + d, _before(centred).index_select(2, group.places)], -1)

    def _around(self, plane: Tensor) -> Tensor:
        """Map (B,C,N) to the sum of the four neighbours of each place; a neighbour outside counts as the place."""
        square = plane.unflatten(2, self._size)
        above = torch.cat([square[:, :, :1], square[:, :, :-1]], 2)
        below = torch.cat([square[:, :, 1:], square[:, :, -1:]], 2)
        left = torch.cat([square[..., :1], square[..., :-1]], 3)
        right = torch.cat([square[..., 1:], square[..., -1:]], 3)
        return (above + below + left + right).flatten(2)

    def _both(self) -> list[_Group]:
        return [_Group(self.get_buffer(places), self.get_buffer(neighbours)) for places, neighbours in self._groups]

    def _index(self, name: str, numbers: Integers) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(numbers, np.int64)), persistent=False)

    def _floats(self, name: str, numbers: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(numbers, np.float32)), persistent=False)


@dataclass(frozen=True)
class _Hard:
    """The coder's integers (B,C,N), their bits (B,), and what the gradients need, each (B,C,N) but `offset` (B,1,1)."""

    integers: Tensor
    bits: Tensor
    prediction: _Prediction
    gate: Tensor
    slope: Tensor
    mean_slope: Tensor
    away: Tensor
    offset: Tensor


def _before(plane: Tensor) -> Tensor:
    """Map (B,C,N) to the channel before each channel; zeros before the first."""
    return torch.cat([torch.zeros_like(plane[:, :1]), plane[:, :-1]], 1)


def _at(plane: Tensor, neighbours: Tensor) -> tuple[Tensor, ...]:
    """Map (B,C,N) to the values at the four neighbours of each place, (B,C,n) each."""
    around: tuple[Tensor, ...] = plane.index_select(2, neighbours).unflatten(2, (NEIGHBOURS, -1)).unbind(2)
    return around
