# SPDX-License-Identifier: Apache-2.0
"""VAEs -> the seconds that each takes to encode and to decode one image, all VAEs in turn."""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from benchmarks.report.model import Model
from benchmarks.report.photographs import photograph
from benchmarks.report.timing import Spread, speed_up, take_turns, warmed_up
from latentwire_codec.images import pixels

SIDE, ROUNDS, LIMIT_S = 512, 7, 300.0
OPERATIONS = ("encode", "decode")

Times = dict[str, dict[str, list[float]]]
"""Seconds of each round, by the name of the model and the operation."""


def take_times(models: Sequence[Model]) -> Times:
    """Time one image of SIDE pixels a side, or of the only size that a model takes."""
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for model in models:
        image = torch.from_numpy(model.frame(photograph(SIDE, SIDE))).unsqueeze(0)
        batch = pixels.to_float(image)
        latents = model.autoencoder.encode(batch).mode()
        calls[model.name, "encode"] = partial(model.autoencoder.encode, batch)
        calls[model.name, "decode"] = partial(model.autoencoder.decode, latents)
    seconds = {key: warmed_up(call)[1] for key, call in calls.items()}
    samples = take_turns(calls, seconds, ROUNDS, LIMIT_S)
    return {model.name: {each: samples[model.name, each] for each in OPERATIONS} for model in models}


def shown(times: Times, model: str, operation: str) -> str:
    """Return the median in ms, and the median over rounds of its ratio to the first model."""
    ours, first = times[model][operation], next(iter(times.values()))[operation]
    return f"{1000 * Spread.of(ours).median:.0f} ({speed_up(ours, first).median:.2f})"
