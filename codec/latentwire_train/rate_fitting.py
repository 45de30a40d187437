# SPDX-License-Identifier: Apache-2.0
"""Models and photographs -> the common prior of the codec, and a model's units."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from latentwire_codec.images import pixels
from latentwire_codec.images.files import read_image
from latentwire_codec.images.geometry import pad_to_multiple
from latentwire_codec.lat.tables import Tables
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_core.errors import CodecError
from latentwire_train.prior_fitting import fit_prior

MULTIPLES = (0.1, 0.2, 0.35, 0.6, 1.0, 2.0)
"""The steps for fitting the tables, in standard deviations."""
NOISE = 0.25
"""Width of the uniform noise for measuring units, in standard deviations."""


def prior_for(models: Sequence[Autoencoder], paths: Sequence[Path]) -> Tables:
    """Fit a prior to the latents of all models of all images; unreadable images are left out."""
    latents = [model.encode(image).mode()[0].numpy() for model in models for image in _images(paths, model)]
    return fit_prior(latents, MULTIPLES)


def units_of(model: Autoencoder, paths: Sequence[Path]) -> tuple[float, ...]:
    """Measure the steps at which rounding errors of every channel cost the same in the decoded images.

    Noise is added to one channel after the other. The geometric mean of the units is that of the channels' standard
    deviations.
    """
    generator = torch.Generator().manual_seed(0)
    latents = [model.encode(image).mode() for image in _images(paths, model)]
    deviations = torch.cat([each.flatten(2)[0] for each in latents], dim=1).std(dim=1)
    costs = np.zeros(len(deviations))
    for each in latents:
        decoded = model.decode(each)
        for channel, deviation in enumerate(deviations):
            noisy = each.clone()
            width = NOISE * float(deviation)
            noisy[:, channel] += width * (torch.rand(noisy[:, channel].shape, generator=generator) - 0.5)
            costs[channel] += float((model.decode(noisy) - decoded).square().mean()) / width**2
    units = 1 / np.sqrt(costs)
    units *= np.exp(np.log(deviations.numpy()).mean() - np.log(units).mean())
    return tuple(float(f"{unit:.4g}") for unit in units)


def _images(paths: Sequence[Path], model: Autoencoder) -> Iterator[torch.Tensor]:
    for path in paths:
        try:
            image: npt.NDArray[np.uint8] = read_image(path.read_bytes())
        except (CodecError, OSError):
            continue
        padded = pad_to_multiple(image, model.spec.downsample_factor)
        yield pixels.to_float(torch.from_numpy(padded).unsqueeze(0))
