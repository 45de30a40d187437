# SPDX-License-Identifier: Apache-2.0
"""What a batch is to do -> what the model gives for each image of it; plain functions for the device's thread."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentwire_codec import pixels
from latentwire_codec.autoencoder import Autoencoder
from latentwire_codec.errors import NonFiniteError
from latentwire_codec.tiling.footprint import Half

WARM_UP_SIDE = 64


@dataclass(frozen=True)
class Task:
    """What one batch does: equal tasks may share a batch."""

    name: str
    """The model's, as it is served."""
    model: Autoencoder
    operation: Half
    shape: tuple[int, ...]
    dtype: torch.dtype
    """Of the input for encode, of the output for decode: uint8 or a float."""


@dataclass(frozen=True)
class Computed:
    """What the model gave for one image: moments for encode, one image for decode; each with B = 1."""

    tensors: tuple[Tensor, ...]
    float32_retry: bool
    compute_ns: int = 0
    """Of the whole batch, known when that has ended."""


def compute(task: Task, payloads: list[Tensor], pause: Callable[[], None]) -> list[Computed | Exception]:
    """Map the inputs of a batch, each with B = 1, to their outputs.

    Where an image of it gives no finite output, all run again one by one.

    Args:
        task: of all of them.
        payloads: at least one.
        pause: called between the strips of a long batch; what it raises ends the batch.
    """
    retried: set[int] = set()
    try:
        tensors = _forward(task, torch.cat(payloads), retried.update, pause)
    except NonFiniteError as error:
        if len(payloads) == 1:
            return [error]
        return [result for one in payloads for result in compute(task, [one], pause)]
    return [
        Computed(tuple(tensor[index : index + 1] for tensor in tensors), index in retried)
        for index in range(len(payloads))
    ]


def warm_up(model: Autoencoder) -> None:
    """Run both halves once, in the thread that will: the first request pays for no lazy initialisation."""
    spec = model.spec
    side = -(-WARM_UP_SIDE // spec.downsample_factor) * spec.downsample_factor
    sides = spec.fixed_size or (side, side)
    images = pixels.to_float(torch.zeros(1, *sides, 3, dtype=torch.uint8, device=spec.device))
    model.decode(model.encode(images).mean, pixels.to_uint8)


def _forward(
    task: Task, batch: Tensor, on_retry: Callable[[list[int]], None], pause: Callable[[], None]
) -> tuple[Tensor, ...]:
    model = task.model
    if task.operation == "decode":
        if task.dtype == torch.uint8:
            return (model.decode(batch, pixels.to_uint8, on_retry, pause),)
        return (model.decode(batch, on_retry=on_retry, pause=pause),)
    if task.dtype == torch.uint8:
        batch = pixels.to_float(batch.to(model.spec.device))
    posterior = model.encode(batch, on_retry, pause)
    if posterior.logvar is None:
        return (posterior.mean,)
    return posterior.mean, posterior.logvar
