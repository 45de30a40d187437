# SPDX-License-Identifier: Apache-2.0
"""Latents of one image <-> integers: multiples of a step, where error and bits are weighed against each other."""

from typing import Any

import numpy as np
import numpy.typing as npt

from latentwire_codec.lat import coder
from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import ESCAPE, FREQUENCY_BITS, LIMIT, MEAN_BITS, ContextModel, contexts
from latentwire_codec.lat.scan import Phase
from latentwire_codec.lat.steps import Steps
from latentwire_core.errors import TensorError

Latents = npt.NDArray[np.floating[Any]]

LAMBDA = 0.1
"""Squared error, in squared steps, that one bit is worth. At high rates d(distortion)/d(rate) = ln 2 / 6 = 0.116."""
OFFSET_BITS = 8
LARGEST_OFFSET = (1 << OFFSET_BITS) - 1


def round_to(latents: Latents, steps: Steps) -> Integers:
    """Map latents to the nearest integers; raises as `quantize`."""
    return np.rint(_in_steps(latents, steps)).astype(np.int64)


def quantize(
    latents: Latents, steps: Steps, prior: ContextModel, lambda_: float = LAMBDA
) -> tuple[coder.Traversed, int]:
    """Map latents to the integers that are the best compromise of error and bits, and to the offset that fits them.

    Of the two integers next to a latent the one is taken with the smaller sum of squared error and `lambda_` times its
    bits; each is decided once, in coding order.

    Args:
        latents: float (C,h,w), finite.
        steps: of C channels.
        prior: that will code them, for these steps.
        lambda_: 0 rounds to the nearest integer.

    Returns:
        integers (C,h,w) with what was expected of them, for `coder.write`; and the offset for `dequantize`, 0..255.

    Raises:
        TensorError: a latent is not finite, or too large for its step.
    """
    real = _in_steps(latents, steps)
    flat = real.reshape(len(real), -1)
    bits = FREQUENCY_BITS - np.log2(prior.frequencies)

    def choose(channel: int, phase: Phase, mean: Integers, scale: Integers) -> Integers:
        wanted = flat[channel].take(phase.places)
        nearest = np.rint(wanted).astype(np.int64)
        context = contexts(mean, scale)
        other = nearest + np.where(wanted < nearest, -1, 1)
        first, second = (coder.symbols(each, context)[0] for each in (nearest, other))
        saved = bits[context.table, first] - bits[context.table, second]
        lost = (wanted - other) ** 2 - (wanted - nearest) ** 2
        # What an escape costs is not in the table.
        better = (lambda_ * saved > lost) & (first != ESCAPE) & (second != ESCAPE)
        chosen: Integers = np.where(better, other, nearest)
        return chosen

    traversed = coder.traverse(coder.shape_of(latents), prior, choose)
    away = _away(traversed.integers, traversed.means)
    energy = float((away**2).sum())
    offset = float((away * (traversed.integers - real)).sum()) / energy if energy else 0.0
    return traversed, int(np.clip(round(offset * (1 << OFFSET_BITS)), 0, LARGEST_OFFSET))


def dequantize(integers: Integers, means: Integers, steps: Steps, offset: int) -> Latents:
    """Map integers and the means expected of them, each (C,h,w), to latents.

    Within its step a latent is likelier on the side of its mean: it is drawn there by offset / 256 of its distance, of
    one step at most. The result is exact in float64 and then rounded to float32, and so the same on every machine.
    """
    drawn = (integers << OFFSET_BITS + MEAN_BITS) - offset * _distance(integers, means)
    sizes = steps.sizes * 2.0 ** -(OFFSET_BITS + MEAN_BITS)
    return (drawn * sizes[:, None, None]).astype(np.float32)


def _in_steps(latents: Latents, steps: Steps) -> npt.NDArray[np.float64]:
    real = latents.astype(np.float64) / steps.sizes[:, None, None]
    largest = float(np.abs(real).max(initial=0))
    if not largest < LIMIT - 1:
        raise TensorError(
            f"a latent is {largest:.6g} steps; it must be finite and below {LIMIT - 1}: take larger steps"
        )
    return real


def _distance(integers: Integers, means: Integers) -> Integers:
    """Return how far integers are from their means, in sixteenths, -16..16."""
    distance: Integers = np.clip((integers << MEAN_BITS) - means, -(1 << MEAN_BITS), 1 << MEAN_BITS)
    return distance


def _away(integers: Integers, means: Integers) -> npt.NDArray[np.float64]:
    return _distance(integers, means) / (1 << MEAN_BITS)
