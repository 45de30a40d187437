# SPDX-License-Identifier: Apache-2.0
"""Latents of one image <-> integers, multiples of a step, by rate-distortion optimised quantization (RDOQ)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from latentwire_codec.compiled import compiled
from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.coder import Chosen, choose
from latentwire_codec.lat.context import LIMIT, MEAN_BITS, ContextModel
from latentwire_core.errors import TensorError

Latents = npt.NDArray[np.floating[Any]]
Reals = npt.NDArray[np.float64]

LAMBDA = 0.1
"""Squared error, in squared steps, that one bit is worth. At high rates d(distortion)/d(rate) = ln 2 / 6 = 0.116."""
OFFSET_BITS = 8
LARGEST_OFFSET = (1 << OFFSET_BITS) - 1


@dataclass(frozen=True)
class Steps:
    """The quantizer's step of each channel as an exact number that fits into a header: numerator * 2^-exponent.

    Attributes:
        numerators: one for each channel, 1 .. 65535.
        exponent: -64 .. 63.
    """

    numerators: tuple[int, ...]
    exponent: int

    @cached_property
    def sizes(self) -> npt.NDArray[np.float64]:
        """(C,), in the unit of the latents."""
        return np.array(self.numerators, np.float64) * 2.0**-self.exponent

    @classmethod
    def nearest(cls, sizes: npt.NDArray[np.float64]) -> "Steps":
        """Return the steps closest to (C,) positive sizes; relative to the largest they are exact to 2^-16."""
        sizes = np.clip(sizes, 2.0**-63, 2.0**79)
        exponent = int(np.clip(np.floor(16 - np.log2(sizes.max())), -64, 63))
        numerators = np.clip(np.round(sizes * 2.0**exponent), 1, 65535)
        return cls(tuple(int(numerator) for numerator in numerators), exponent)


def round_to(latents: Latents, steps: Steps) -> Integers:
    """Map latents to the nearest integers; raises as `quantize`."""
    return np.rint(_in_steps(latents, steps)).astype(np.int64)


def quantize(latents: Latents, steps: Steps, model: ContextModel, lambda_: float = LAMBDA) -> tuple[Chosen, int]:
    """Map latents to integers that weigh error against bits, and to the reconstruction offset that fits them.

    Args:
        latents: float (C,h,w), finite.
        steps: the steps of C channels.
        model: the context model that codes the integers.
        lambda_: squared steps that a bit is worth; 0 rounds to the nearest integer; see `coder.choose`.

    Returns:
        the integers, coded; and the reconstruction offset for `dequantize`, 0..255.

    Raises:
        TensorError: a latent is not finite, or too large for its step.
    """
    reals = _in_steps(latents, steps)
    chosen = choose(reals, model, lambda_)
    product, energy = _offset_sums(reals.ravel(), chosen.integers.ravel(), chosen.means.ravel())
    offset = product / energy if energy else 0.0
    return chosen, int(np.clip(round(offset * (1 << OFFSET_BITS)), 0, LARGEST_OFFSET))


def dequantize(integers: Integers, means: Integers, steps: Steps, reconstruction_offset: int) -> Latents:
    """Map integers and the means expected of them, each (C,h,w), to latents, float32.

    Within its step, a latent is likelier to lie on the side of its mean. Each integer is therefore moved towards its
    mean by offset / 256 of the distance, which counts as one step at most. The result is exact in float64 and then
    rounded to float32, so that it is the same on every machine.
    """
    sizes = steps.sizes * 2.0 ** -(OFFSET_BITS + MEAN_BITS)
    latents = np.empty(integers.shape, np.float32)
    rows = (len(sizes), -1)
    _move(integers.reshape(rows), means.reshape(rows), latents.reshape(rows), sizes, reconstruction_offset)
    return latents


def _in_steps(latents: Latents, steps: Steps) -> Reals:
    real = latents.astype(np.float64) / steps.sizes[:, None, None]
    largest = float(np.abs(real).max(initial=0))
    if not largest < LIMIT - 1:
        raise TensorError(
            f"a latent is {largest:.6g} steps; it must be finite and below {LIMIT - 1}: take larger steps"
        )
    return real


@compiled
def _distance(integer: int, mean: int) -> int:
    """Return how far an integer is from its mean, in sixteenths of a step, -16..16."""
    return min(max((integer << MEAN_BITS) - mean, -(1 << MEAN_BITS)), 1 << MEAN_BITS)


@compiled
def _offset_sums(reals: Reals, integers: Integers, means: Integers) -> tuple[float, float]:
    """Return the sum of distances times errors, and of squared distances, in squared steps."""
    product, energy = 0.0, 0.0
    for at in range(len(reals)):
        away = _distance(integers[at], means[at]) / (1 << MEAN_BITS)
        product += away * (integers[at] - reals[at])
        energy += away * away
    return product, energy


@compiled
def _move(
    integers: Integers, means: Integers, latents: npt.NDArray[np.float32], sizes: Reals, reconstruction_offset: int
) -> None:
    for channel in range(len(sizes)):
        for at in range(integers.shape[1]):
            integer = integers[channel, at]
            moved = (integer << OFFSET_BITS + MEAN_BITS) - reconstruction_offset * _distance(
                integer, means[channel, at]
            )
            latents[channel, at] = moved * sizes[channel]
