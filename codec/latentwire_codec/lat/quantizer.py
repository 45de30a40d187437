# SPDX-License-Identifier: Apache-2.0
"""Latents of one image <-> integers, multiples of a step, by rate-distortion optimised quantization (RDOQ)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import ESCAPE, FREQUENCY_BITS, LIMIT, MEAN_BITS, ContextModel, contexts
from latentwire_codec.lat.traversal import Phase, Traversed, shape_of, symbols, traverse
from latentwire_core.errors import TensorError

Latents = npt.NDArray[np.floating[Any]]

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


def quantize(latents: Latents, steps: Steps, model: ContextModel, lambda_: float = LAMBDA) -> tuple[Traversed, int]:
    """Map latents to integers that weigh error against bits, and to the reconstruction offset that fits them.

    For each latent the two nearest integers are compared. The one with the smaller squared error + `lambda_` * bits is
    taken. Each integer is decided once, in coding order.

    Args:
        latents: float (C,h,w), finite.
        steps: the steps of C channels.
        model: the context model that will code the integers.
        lambda_: squared steps that a bit is worth; 0 rounds to the nearest integer.

    Returns:
        integers (C,h,w), traversed as `coder.write` takes them; and the reconstruction offset for `dequantize`, 0..255.

    Raises:
        TensorError: a latent is not finite, or too large for its step.
    """
    real = _in_steps(latents, steps)
    flat = real.reshape(len(real), -1)
    bits = FREQUENCY_BITS - np.log2(model.frequencies)

    def choose(channel: int, phase: Phase, mean: Integers, scale: Integers) -> Integers:
        wanted = flat[channel].take(phase.places)
        nearest = np.rint(wanted).astype(np.int64)
        context = contexts(mean, scale)
        other = nearest + np.where(wanted < nearest, -1, 1)
        nearest_symbols, other_symbols = (symbols(each, context)[0] for each in (nearest, other))
        saved = bits[context.table, nearest_symbols] - bits[context.table, other_symbols]
        lost = (wanted - other) ** 2 - (wanted - nearest) ** 2
        # A latent near an escape keeps the nearest integer: the tables do not state how many bits an escape takes.
        better = (lambda_ * saved > lost) & (nearest_symbols != ESCAPE) & (other_symbols != ESCAPE)
        chosen: Integers = np.where(better, other, nearest)
        return chosen

    traversed = traverse(shape_of(latents), model, choose)
    away = _distance(traversed.integers, traversed.means) / (1 << MEAN_BITS)
    energy = float((away**2).sum())
    offset = float((away * (traversed.integers - real)).sum()) / energy if energy else 0.0
    return traversed, int(np.clip(round(offset * (1 << OFFSET_BITS)), 0, LARGEST_OFFSET))


def dequantize(integers: Integers, means: Integers, steps: Steps, reconstruction_offset: int) -> Latents:
    """Map integers and the means expected of them, each (C,h,w), to latents, float32.

    Within its step, a latent is likelier to lie on the side of its mean. Each integer is therefore moved towards its
    mean by offset / 256 of the distance, which counts as one step at most. The result is exact in float64 and then
    rounded to float32, so that it is the same on every machine.
    """
    moved = (integers << OFFSET_BITS + MEAN_BITS) - reconstruction_offset * _distance(integers, means)
    sizes = steps.sizes * 2.0 ** -(OFFSET_BITS + MEAN_BITS)
    return (moved * sizes[:, None, None]).astype(np.float32)


def _in_steps(latents: Latents, steps: Steps) -> npt.NDArray[np.float64]:
    real = latents.astype(np.float64) / steps.sizes[:, None, None]
    largest = float(np.abs(real).max(initial=0))
    if not largest < LIMIT - 1:
        raise TensorError(
            f"a latent is {largest:.6g} steps; it must be finite and below {LIMIT - 1}: take larger steps"
        )
    return real


def _distance(integers: Integers, means: Integers) -> Integers:
    """Return how far integers are from their means, in sixteenths of a step, -16..16."""
    distance: Integers = np.clip((integers << MEAN_BITS) - means, -(1 << MEAN_BITS), 1 << MEAN_BITS)
    return distance
