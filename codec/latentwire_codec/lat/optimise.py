# SPDX-License-Identifier: Apache-2.0
"""An image and its latents -> latents that decode closer to it, in fewer bits: gradient descent through the decoder.

An encoder answers every image with one pass; what it misses on the image at hand, and what the quantizer will do to its
answer, is made up for here. The decoder, the format and those who read it stay as they are. Closer is meant in PSNR and
in MS-SSIM: few bits win PSNR alone by leaving texture out. Rounding is stood in for by uniform noise (Balle et al.,
"End-to-end optimized image compression", 2017), and then by soft rounding that gets harder and harder, so that latents
choose their integers together (after Yang, Bamler, Mandt, "Improving Inference for Neural Image Compression", 2020,
without their sampling: the sampled choice lost 0.3 dB in as many iterations).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.expected_bits import ExpectedBits
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.steps import Steps
from latentwire_codec.lat.tables import common_tables
from latentwire_codec.metrics.similarity import WINDOW_SIDE, ms_ssim_loss
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_core.errors import NonFiniteError, TensorError

Latents = npt.NDArray[np.floating[Any]]

NOISE_SHARE = 0.3
"""Of the iterations; the others choose integers."""
LEARNING_RATE, SLOWEST = 0.15, 0.015
"""What a latent moves in the first iterations: so many steps of the quantizer, at least so many standard deviations."""
SOFTEST, HARDEST = 2.0, 20.0
ITERATIONS_PER_FIT = 10
"""Of the prior's weights to the latents on their way."""
DB_PER_BIT = 20 * math.log10(2)
"""What a bit is worth where nothing but the quantizer's noise is lost: half the step."""
SIMILARITY_SHARE = 0.25
"""Of 1 - MS-SSIM in the distortion, both in dB; the rest is the squared error's."""
SMALLEST = (1e-9, 1e-6)
"""The least of both that counts, for each value of the image: where it is met exactly they have no slope in dB."""
WINDOW, HALO = 128, 16
"""Latents decoded at most at once along a side, and what is decoded around them, so that memory is bounded."""


@dataclass(frozen=True)
class LatentOptimisation:
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
            raise TensorError(f"a latent optimisation has {self.iterations} iterations; at least 1 is needed")
        if not 0 <= self.rate_weight < math.inf:
            raise TensorError(f"the rate's weight is {self.rate_weight}; it must be finite and at least 0")


def optimise(
    autoencoder: Autoencoder,
    image: Tensor,
    latents: Tensor,
    steps: Steps,
    optimisation: LatentOptimisation,
    pause: Callable[[], None] = lambda: None,
) -> Latents:
    """Map an image and its latents to those multiples of the steps that are the best compromise of error and bits.

    The result differs from machine to machine, as that of `encode` does, but not from call to call.

    Args:
        autoencoder: that decodes them.
        image: float (1,3,H,W) in [-1,1], before padding.
        latents: float32 (1,C,h,w), raw, as they were encoded.
        steps: of the quantizer that comes after.
        optimisation: how far.
        pause: called before each window of each iteration; what it raises ends them.

    Returns:
        float32 (C,h,w), raw.

    Raises:
        NonFiniteError: what the latents decode to is not finite.
    """
    with torch.inference_mode(False), torch.enable_grad():
        descent = _Descent(autoencoder, image, latents, steps, optimisation, pause)
        for iteration in range(optimisation.iterations):
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
        optimisation: LatentOptimisation,
        pause: Callable[[], None],
    ) -> None:
        self._autoencoder, self._steps, self._iterations = autoencoder, steps, optimisation.iterations
        self._pause = pause
        device = torch.device(autoencoder.spec.device)
        self._image = image.float().to(device)
        self._sizes = torch.from_numpy(steps.sizes).float().view(-1, 1, 1).to(device)
        self._reals = latents[0].float().to(device) / self._sizes
        # The same noise for every image: results can be repeated.
        self._noise = torch.Generator().manual_seed(0)
        self._has_similarity = min(image.shape[2:]) >= WINDOW_SIDE
        similarity_share = SIMILARITY_SHARE if self._has_similarity else 0.0
        self._shares = torch.tensor([1 - similarity_share, similarity_share], device=device)
        encoded = self._distortions_of(self._reals)
        # Those of the iteration before; of rounded latents, before the first.
        self._distortions = self._distortions_of(self._reals + self._uniform(self._reals.shape) - 0.5)
        quantization_share = 1 - (encoded / self._distortions)[0].item()
        self._db_per_bit = optimisation.rate_weight * DB_PER_BIT * max(0.0, quantization_share)
        # Where steps are fine, so many of them are no way to go.
        self._learning_rate = max(LEARNING_RATE, SLOWEST * self._reals.std(correction=0).item())
        self._reals.requires_grad_()
        self._optimizer = torch.optim.Adam([self._reals], self._learning_rate, betas=(0.9, 0.99))
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
        self._optimizer.param_groups[0]["lr"] = self._learning_rate * (1 + math.cos(math.pi * progress)) / 2
        rounded = self._softly_rounded(progress)
        values = rounded.detach().requires_grad_()
        (of_bits,) = torch.autograd.grad(self._expected_bits(values), values)
        # Of the distortion in dB, and of bits for each latent.
        slope = self._distortion_slope(values) + of_bits * (self._db_per_bit / values.numel())
        self._optimizer.zero_grad()
        rounded.backward(slope)
        self._optimizer.step()

    def _fit_bits(self) -> ExpectedBits:
        channels, height, width = self._reals.shape
        prior = common_tables().context_model(SideInformation.fit(self._integers()))
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

    def _distortion_slope(self, values: Tensor) -> Tensor:
        """Map latents (C,h,w), in steps, to the gradient of their image's distortion, in dB.

        A logarithm's slope needs the distortions of all windows while the first is at hand: those of the iteration
        before stand for them.
        """
        weights = self._shares * (10 / math.log(10)) / self._distortions
        total, slope = torch.zeros_like(self._shares), torch.zeros_like(values)
        for distortions in self._by_window(values, self._autoencoder.decode_with_gradients):
            slope += torch.autograd.grad(weights @ distortions, values)[0]
            total += distortions.detach()
        self._distortions = self._counted(total)
        return slope

    def _distortions_of(self, values: Tensor) -> Tensor:
        """Map latents (C,h,w), in steps, to the squared error of their image, and 1 - MS-SSIM, both summed."""
        return self._counted(sum(self._by_window(values, self._autoencoder.decode), torch.zeros_like(self._shares)))

    def _by_window(self, values: Tensor, decode: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
        (height, width), f = values.shape[1:], self._autoencoder.spec.downsample_factor
        for (top, bottom, above, below), (left, right, before, after) in product(_windows(height), _windows(width)):
            self._pause()
            seen = self._sizes * values[:, above:below, before:after]
            decoded = decode(seen.unsqueeze(0)).to(self._image.device)
            image = self._image[..., top * f : bottom * f, left * f : right * f]
            rows, columns = (top - above) * f, (left - before) * f
            kept = decoded[..., rows : rows + image.shape[2], columns : columns + image.shape[3]].clamp(-1, 1)
            error = (kept - image).square().sum()
            unlikeness = ms_ssim_loss(kept, image) * image.numel() if self._has_similarity else torch.zeros_like(error)
            yield torch.stack([error, unlikeness])

    def _counted(self, distortions: Tensor) -> Tensor:
        if not distortions.isfinite().all():
            raise NonFiniteError(
                "what the latents decode to is not finite while they are optimised; compress without latent optimisation"
            )
        return distortions.maximum(torch.tensor(SMALLEST, device=distortions.device) * self._image.numel())


def _windows(side: int) -> Iterator[tuple[int, int, int, int]]:
    """Map a side, in latents, to equal windows: where each begins and ends, and where what is decoded with it does."""
    count = math.ceil(side / WINDOW)
    for begin, end in pairwise(side * index // count for index in range(count + 1)):
        yield begin, end, max(begin - HALO, 0), min(end + HALO, side)
