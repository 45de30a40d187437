# SPDX-License-Identifier: Apache-2.0
"""An image and its latents -> latents that decode closer to it, in fewer bits: gradient descent through the decoder.

An encoder answers every image with one pass; what it misses on the image at hand, and what the quantizer will do to its
answer, is made up for here. The decoder, the format and those who read it stay as they are. Rounding is stood in for by
uniform noise (Balle et al., "End-to-end optimized image compression", 2017), and then by soft rounding that gets harder
and harder, so that latents choose their integers together (after Yang, Bamler, Mandt, "Improving Inference for Neural
Image Compression", 2020, without their sampling: the sampled choice lost 0.3 dB in as many iterations).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from latentwire_codec.autoencoder import Autoencoder
from latentwire_codec.bits import Integers
from latentwire_codec.errors import NonFiniteError, TensorError
from latentwire_codec.expected_bits import ExpectedBits
from latentwire_codec.fitted_prior import common_prior
from latentwire_codec.prediction import Prediction
from latentwire_codec.steps import Steps

Latents = npt.NDArray[np.floating[Any]]

NOISE_SHARE = 0.3
"""Of the iterations; the others choose integers."""
LEARNING_RATE = 0.15
"""Steps of the quantizer that a latent moves in the first iterations."""
SOFTEST, HARDEST = 2.0, 20.0
ITERATIONS_PER_FIT = 10
"""Of the prior's weights to the latents on their way."""
DB_PER_BIT = 20 * math.log10(2)
"""What a bit is worth where nothing but the quantizer's noise is lost: half the step."""
SMALLEST_ERROR = 1e-9
WINDOW, HALO = 128, 16
"""Latents decoded at once along a side, and what is decoded around them, so that memory is bounded."""


@dataclass(frozen=True)
class Refinement:
    """How far latents are fitted to their image.

    Attributes:
        iterations: of gradient descent, at least 1; each takes about as long as encoding and decoding twice.
        rate_weight: 1 weighs bits as the quantizer's steps do: what a bit of finer steps would gain in PSNR. More gives
            up quality for bytes, 0 takes any number of bits.

    Raises:
        TensorError: a number is out of range.
    """

    iterations: int
    rate_weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.iterations < 1:
            raise TensorError(f"a refinement has {self.iterations} iterations; at least 1 is needed")
        if not 0 <= self.rate_weight < math.inf:
            raise TensorError(f"the rate's weight is {self.rate_weight}; it must be finite and at least 0")


def refine(
    autoencoder: Autoencoder,
    image: Tensor,
    latents: Tensor,
    steps: Steps,
    refinement: Refinement,
    pause: Callable[[], None] = lambda: None,
) -> Latents:
    """Map an image and its latents to those multiples of the steps that are the best compromise of error and bits.

    The result differs from machine to machine, as that of `encode` does, but not from call to call.

    Args:
        autoencoder: that decodes them.
        image: float (1,3,H,W) in [-1,1], before padding.
        latents: float32 (1,C,h,w), raw, as they were encoded.
        steps: of the quantizer that comes after.
        refinement: how far.
        pause: called before each window of each iteration; what it raises ends them.

    Returns:
        float32 (C,h,w), raw.

    Raises:
        NonFiniteError: what the latents decode to is not finite.
    """
    with torch.inference_mode(False), torch.enable_grad():
        descent = _Descent(autoencoder, image, latents, steps, refinement, pause)
        for iteration in range(refinement.iterations):
            descent.go(iteration)
        return descent.latents


class _Descent:
    """The latents of one image on their way."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        image: Tensor,
        latents: Tensor,
        steps: Steps,
        refinement: Refinement,
        pause: Callable[[], None],
    ) -> None:
        self._autoencoder, self._steps, self._iterations = autoencoder, steps, refinement.iterations
        self._pause = pause
        device = torch.device(autoencoder.spec.device)
        self._image = image.float().to(device)
        self._sizes = torch.from_numpy(steps.sizes).float().view(-1, 1, 1).to(device)
        self._reals = latents[0].float().to(device) / self._sizes
        # The same noise for every image: results can be repeated.
        self._noise = torch.Generator().manual_seed(0)
        self._db_per_bit = refinement.rate_weight * DB_PER_BIT * self._quantization_share()
        self._reals.requires_grad_()
        self._optimizer = torch.optim.Adam([self._reals], LEARNING_RATE, betas=(0.9, 0.99))
        self._expected_bits = self._fit_bits()

    @property
    def latents(self) -> Latents:
        """Multiples of the steps, float32 (C,h,w)."""
        multiples: Latents = (self._integers() * self._steps.sizes[:, None, None]).astype(np.float32)
        return multiples

    def go(self, iteration: int) -> None:
        """Take a step."""
        if iteration and iteration % ITERATIONS_PER_FIT == 0:
            self._expected_bits = self._fit_bits()
        progress = iteration / self._iterations
        self._optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * progress)) / 2
        rounded = self._softly_rounded(progress)
        values = rounded.detach().requires_grad_()
        (of_bits,) = torch.autograd.grad(self._expected_bits(values), values)
        error, of_error = self._squared_error(values)
        # Of the PSNR in dB, and of bits for each latent.
        slope = of_error * (10 / math.log(10) / error) + of_bits * (self._db_per_bit / values.numel())
        self._optimizer.zero_grad()
        rounded.backward(slope)
        self._optimizer.step()

    def _quantization_share(self) -> float:
        """Return the part of the squared error that comes from rounding the latents as they were encoded."""
        encoded, rounded = (
            functional.mse_loss(self._decoded(values), self._image.cpu()).item()
            for values in (self._reals, self._reals + self._uniform(self._reals.shape) - 0.5)
        )
        return max(0.0, 1 - encoded / rounded) if rounded else 0.0

    def _decoded(self, values: Tensor) -> Tensor:
        images = self._autoencoder.decode((values * self._sizes).unsqueeze(0), pause=self._pause)
        return images[..., : self._image.shape[2], : self._image.shape[3]].clamp(-1, 1)

    def _fit_bits(self) -> ExpectedBits:
        channels, height, width = self._reals.shape
        prior = common_prior().prior(Prediction.fit(self._integers()))
        return ExpectedBits((channels, height, width), prior, self._reals.device)

    def _integers(self) -> Integers:
        integers: Integers = self._reals.detach().round().long().cpu().numpy()
        return integers

    def _softly_rounded(self, progress: float) -> Tensor:
        """Return what stands for the integers: the reals with noise, later what lies between two of them."""
        if progress < NOISE_SHARE:
            return self._reals + self._uniform(self._reals.shape) - 0.5
        done = (progress - NOISE_SHARE) / (1 - NOISE_SHARE)
        hardness = SOFTEST * (HARDEST / SOFTEST) ** done
        below = self._reals.detach().floor()
        part = (self._reals - below).clamp(1e-4, 1 - 1e-4)
        # 0 and 1 stay, 1/2 stays, and what is between draws near to the closer end.
        share: Tensor = (hardness * (torch.atanh(part) - torch.atanh(1 - part))).sigmoid()
        return below + share

    def _uniform(self, shape: Sequence[int]) -> Tensor:
        return torch.rand(tuple(shape), generator=self._noise).to(self._reals.device)

    def _squared_error(self, values: Tensor) -> tuple[float, Tensor]:
        """Map latents (C,h,w), in steps, to the summed squared error of their image and to its gradient."""
        (height, width), f = values.shape[1:], self._autoencoder.spec.downsample_factor
        total, gradient = 0.0, torch.zeros_like(values)
        for (top, bottom, above, below), (left, right, before, after) in product(_windows(height), _windows(width)):
            self._pause()
            seen = self._sizes * values[:, above:below, before:after]
            decoded = self._autoencoder.decode_with_gradients(seen.unsqueeze(0))
            image = self._image[..., top * f : bottom * f, left * f : right * f]
            rows, columns = (top - above) * f, (left - before) * f
            kept = decoded[..., rows : rows + image.shape[2], columns : columns + image.shape[3]]
            error = (kept.clamp(-1, 1) - image).square().sum()
            total += error.item()
            gradient += torch.autograd.grad(error, values)[0]
        if not math.isfinite(total):
            raise NonFiniteError(
                "what the latents decode to is not finite while they are refined; compress without refinement"
            )
        # An image that is met exactly has no slope.
        return max(total, SMALLEST_ERROR), gradient


def _windows(side: int) -> Iterator[tuple[int, int, int, int]]:
    """Map a side, in latents, to windows: where each begins and ends, and where what is decoded with it does."""
    for begin in range(0, side, WINDOW):
        end = min(begin + WINDOW, side)
        yield begin, end, max(begin - HALO, 0), min(end + HALO, side)
