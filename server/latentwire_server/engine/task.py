# SPDX-License-Identifier: Apache-2.0
"""A task and the inputs of a batch -> the output of the model for each: plain functions for the device's thread."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentwire_codec.images import pixels
from latentwire_codec.lat.images import optimise_latents
from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.tiling.footprint import Half
from latentwire_core.errors import NonFiniteError

WARM_UP_SIDE = 64
PASSES_PER_ITERATION = 3
"""An iteration decodes, and goes back the same way for the gradient, which takes twice as long."""


@dataclass(frozen=True)
class Fit:
    """How encoded latents are fitted to their image before they become a payload.

    Attributes:
        refinement: how far they are fitted.
        quality: the quality of the payload, not lossless.
        image_size: height and width before padding.
    """

    refinement: LatentOptimisation
    quality: str | float
    image_size: tuple[int, int]


@dataclass(frozen=True)
class Task:
    """What one batch does: images of equal tasks may share a batch.

    Attributes:
        name: the name by which the model is served.
        model: the model.
        operation: encode or decode.
        shape: the shape of one input, without B.
        dtype: the dtype of the input for encode, of the output for decode: uint8 or a float.
        fit: how encoded latents are fitted to their image; None: they are not.
    """

    name: str
    model: Autoencoder
    operation: Half
    shape: tuple[int, ...]
    dtype: torch.dtype
    fit: Fit | None = None

    @property
    def passes(self) -> int:
        """The work of the task, in times that of encoding or decoding once."""
        return 1 if self.fit is None else 1 + PASSES_PER_ITERATION * self.fit.refinement.iterations


@dataclass(frozen=True)
class Computed:
    """What the model gave for one image.

    Attributes:
        tensors: moments for encode, one image for decode; each with B = 1. An encode with a fit gives the fitted
            latents (1,C,h,w) and the units (1,C), float64, to compress them with.
        float32_retry: whether the image was computed again in float32.
        compute_ns: the duration of the whole batch, known when the batch has ended.
    """

    tensors: tuple[Tensor, ...]
    float32_retry: bool
    compute_ns: int = 0


def compute(task: Task, payloads: list[Tensor], pause: Callable[[], None]) -> list[Computed | Exception]:
    """Map the inputs of a batch, each with B = 1, to their outputs.

    Where the output of an image is not finite, all images run again one by one.

    Args:
        task: what to do with each input.
        payloads: at least one input.
        pause: called between the strips, or a refinement's windows, of a long batch; its exception ends the batch.
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
    """Run both halves once, in the device's thread, so that no request pays for lazy initialisation."""
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
    if task.fit is not None:
        return _fitted(task.fit, model, posterior.mode(), batch, pause)
    if posterior.logvar is None:
        return (posterior.mean,)
    return posterior.mean, posterior.logvar


def _fitted(
    fit: Fit, model: Autoencoder, latents: Tensor, padded: Tensor, pause: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    """Map latents (B,C,h,w) and their images, float (B,3,H,W), to the fitted latents and their units (B,C)."""
    height, width = fit.image_size
    fitted, units = zip(
        *(
            optimise_latents(one, image, fit.quality, fit.refinement, model=model, pause=pause)
            for one, image in zip(latents.split(1), padded[:, :, :height, :width].split(1), strict=True)
        ),
        strict=True,
    )
    return torch.stack([torch.from_numpy(one) for one in fitted]), torch.tensor(units, dtype=torch.float64)
