# SPDX-License-Identifier: Apache-2.0
"""Latents of many images -> the prior that codes such latents in few bits.

The weights of the scale by non-negative least squares on absolute errors, each weighed by what is expected of it; then
walks over everything count the symbols of each table.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from latentwire_codec.lat import context, tables
from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import LEVELS, MEAN_BITS, SCALE_BITS, SYMBOLS, TABLES
from latentwire_codec.lat.quantizer import LAMBDA, Steps, quantize, round_to
from latentwire_codec.lat.side_information import DEVIATIONS, SideInformation
from latentwire_codec.lat.tables import ROWS, Tables
from latentwire_codec.lat.trace import trace
from latentwire_codec.lat.traversal import KINDS, plan_of, shape_of

Latents = npt.NDArray[np.float32]
Reals = npt.NDArray[np.float64]

ROUNDS = 5
LEAST_SCALE = 0.02
"""The smallest scale that weighs an error, in steps."""
LAPLACE_COUNTS = 20.0
"""Number of symbols of a Laplace distribution that each table starts with."""
NEIGHBOURING_LEVELS = 0.2
"""Share of the symbols of the two neighbouring scales that count for a table."""


def fit_prior(samples: Sequence[tuple[Latents, Steps]]) -> Tables:
    """Fit the weights of the scale and the tables to raw latents (C,h,w), each with the steps that it is coded with.

    The latents may be of any number of images and VAEs. An image that is to be coded well with several steps comes
    with each of them.
    """
    kinds = len(KINDS)
    prior = Tables(
        scale_weights=np.zeros((ROWS, kinds, context.SCALE_TERMS), np.int64),
        scale_floor=np.zeros((ROWS, kinds), np.int64),
        scale_spread=np.zeros((ROWS, kinds), np.int64),
        frequencies=np.full((TABLES, SYMBOLS), (1 << context.FREQUENCY_BITS) // SYMBOLS),
    )
    _fit_scales(prior, samples)
    # The quantizer chooses by the tables' costs: the first tables are of rounded latents, the second of chosen ones.
    for trade in (0.0, LAMBDA):
        counts = np.zeros((TABLES, SYMBOLS))
        for each, steps in samples:
            _count(counts, each, steps, prior, trade)
        prior = replace(prior, frequencies=_frequencies(counts))
    return prior


def _fit_scales(prior: Tables, samples: Sequence[tuple[Latents, Steps]]) -> None:
    """Fill in the weights of the scale."""
    features, errors = defaultdict(list), defaultdict(list)
    for latents, steps in samples:
        for key, feature, error in _errors(prior, latents, steps):
            features[key].append(feature)
            errors[key].append(error)
    for key in features:
        table, wanted = np.concatenate(features[key]), np.concatenate(errors[key])
        expected = np.full(len(wanted), wanted.mean() + LEAST_SCALE)
        for _ in range(ROUNDS):
            weights = _non_negative(table / expected[:, None], wanted / expected)
            expected = np.maximum(table @ weights, LEAST_SCALE)
        # Few errors can be fitted by weights of any size.
        scaled = np.rint(weights[: context.SCALE_TERMS] * (1 << SCALE_BITS - MEAN_BITS + context.WEIGHT_BITS))
        prior.scale_weights[key] = np.minimum(scaled, tables.LARGEST_WEIGHT)
        prior.scale_floor[key] = min(round(weights[-2] * (1 << SCALE_BITS + context.WEIGHT_BITS)), tables.LARGEST_FLOOR)
        prior.scale_spread[key] = min(round(weights[-1] * (1 << tables.SPREAD_BITS)), tables.LARGEST_SPREAD)


def _errors(
    prior: Tables, latents: Latents, steps: Steps
) -> Iterator[tuple[tuple[int, int], npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Yield for each channel and phase: (row, kind), features of the scale (n, 9), absolute errors in steps (n,)."""
    integers = round_to(latents, steps)
    prediction = SideInformation.fit(integers)
    _, height, width = shape_of(integers)
    plan = plan_of(height, width)
    for channel, traced in enumerate(trace(integers, prior.context_model(prediction))):
        feature = traced.features / (1 << MEAN_BITS)
        deviation = DEVIATIONS[prediction.quarters[channel]] / (1 << SCALE_BITS)
        constants = np.broadcast_to([1.0, deviation], (len(feature), 2))
        error = np.abs(integers[channel].ravel()[plan.places] - traced.means / (1 << MEAN_BITS))
        features, errors = np.column_stack([feature, constants]).astype(np.float32), error.astype(np.float32)
        for kind, (begin, end) in enumerate(pairwise(plan.begins)):
            if begin < end:
                yield (min(channel, ROWS - 1), kind), features[begin:end], errors[begin:end]


def _non_negative(features: npt.NDArray[np.floating], targets: npt.NDArray[np.floating]) -> Reals:
    """Solve least squares with weights of at least 0, by coordinate descent."""
    gram, right = (features.T @ each for each in (features, targets))
    scale = np.sqrt(np.diag(gram)) + 1e-9
    gram, right = gram / scale / scale[:, None] + 1e-6 * np.eye(len(scale)), right / scale
    weights: Reals = np.zeros(len(right))
    for _ in range(300):
        for index in range(len(right)):
            weights[index] = max(0.0, weights[index] + (right[index] - gram[index] @ weights) / gram[index, index])
    weights[scale < 1e-6] = 0
    weights /= scale
    return weights


def _count(counts: Reals, latents: Latents, steps: Steps, prior: Tables, trade: float) -> None:
    """Add the symbols of one image at each table."""
    image = prior.context_model(SideInformation.fit(round_to(latents, steps)))
    for traced in trace(quantize(latents, steps, image, trade)[0].integers, image):
        np.add.at(counts, (traced.tables, traced.symbols), 1)


def _frequencies(counts: Reals) -> Integers:
    """Map counts (TABLES, SYMBOLS) to frequencies: each at least 1, the sum of each table 2^16."""
    levels = counts.reshape(LEVELS, context.FRACTIONS, SYMBOLS)
    smooth = levels + LAPLACE_COUNTS * _laplace()
    smooth[1:] += NEIGHBOURING_LEVELS * levels[:-1]
    smooth[:-1] += NEIGHBOURING_LEVELS * levels[1:]
    shares = (smooth / smooth.sum(-1, keepdims=True)).reshape(TABLES, SYMBOLS)
    total = 1 << context.FREQUENCY_BITS
    frequencies: Integers = np.maximum(1, np.floor(shares * total)).astype(np.int64)
    frequencies[np.arange(TABLES), shares.argmax(1)] += total - frequencies.sum(1)
    return frequencies


def _laplace() -> Reals:
    """Return probabilities (LEVELS, FRACTIONS, SYMBOLS) under Laplace distributions of the tables' scales."""
    scale = 2.5 * 2 ** ((np.arange(LEVELS) + 0.5 - LEVELS) / 4)[:, None, None]
    edges = (
        np.arange(-context.LARGEST, context.LARGEST + 2)
        - 0.5
        - (np.arange(context.FRACTIONS) / (1 << MEAN_BITS))[None, :, None]
    )
    below = np.where(edges < 0, np.exp(np.minimum(edges, 0) / scale) / 2, 1 - np.exp(-np.maximum(edges, 0) / scale) / 2)
    inside = np.diff(below, axis=-1)
    shares = np.zeros((LEVELS, context.FRACTIONS, SYMBOLS))
    shares[..., : context.ESCAPE] = inside
    shares[..., context.ESCAPE] = np.maximum(1 - inside.sum(-1), 1e-6)
    return shares
