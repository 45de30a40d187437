# SPDX-License-Identifier: Apache-2.0
"""An image and its latents -> latents that decode closer to it, in fewer bits: gradient descent through the decoder.

An encoder answers every image with one pass. Gradient descent makes up for two losses: the error of the encoder on the
image at hand, and the error that the quantizer will add. The decoder, the format and its readers stay as they are.
The distance is measured by PSNR and by MS-SSIM together, because PSNR alone can be won with few bits by leaving texture
out.

Rounding has no slope. Uniform noise stands in for it at first (Balle et al., "End-to-end optimized image compression",
2017), then soft rounding that gets harder and harder, so that latents choose their integers together (after Yang,
Bamler, Mandt, "Improving Inference for Neural Image Compression", 2020, without their sampling: the sampled choice lost
0.3 dB in as many iterations).
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
from latentwire_codec.lat.quantizer import Steps
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import common_tables
from latentwire_codec.lat.traversal import shape_of
from latentwire_codec.metrics.similarity import WINDOW_SIDE, ms_ssim_loss
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_core.errors import NonFiniteError, TensorError

Latents = npt.NDArray[np.floating[Any]]

NOISE_SHARE = 0.3
"""Share of the iterations that add noise; the others choose integers."""
LEARNING_RATE, SLOWEST = 0.15, 0.015
"""How far a latent moves in the first iterations: steps of the quantizer; at least, standard deviations."""
SOFTEST, HARDEST = 2.0, 20.0
ITERATIONS_PER_FIT = 10
"""Iterations after which the context model is fitted to the latents again."""
DB_PER_BIT = 20 * math.log10(2)
"""Gain in PSNR of one bit more for each latent, which halves the step, where only the quantizer's noise is lost."""
SIMILARITY_SHARE = 0.25
"""Share of 1 - MS-SSIM in the distortion, in dB; the other share is the squared error's, in dB too."""
SMALLEST = (1e-9, 1e-6)
"""The least of both distortions that counts, for each value of the image: in dB, a distortion of 0 has no slope."""
WINDOW, HALO = 128, 16
"""Latents decoded at once along a side, at most, and the latents decoded around them; they bound the memory."""


@dataclass(frozen=True)
class LatentOptimisation:
    """How far latents are fitted to their image.

    Attributes:
        iterations: of gradient descent, at least 1; each takes about as long as encoding and decoding twice.
        rate_weight: weight of the bits; 1 values a bit by the PSNR that it would gain through finer steps. More gives
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
    """Map an image and its latents to multiples of the steps that weigh error against bits.

    Like the result of `encode`, the result differs from machine to machine, but not from call to call.

    Args:
        autoencoder: the VAE that decodes the latents.
        image: float (1,3,H,W) in [-1,1], before padding.
        latents: float32 (1,C,h,w), raw, as they were encoded; the result is float32 (C,h,w), raw.
        steps: the steps of the quantizer that comes after.
        optimisation: the number of iterations and the weight of the bits.
        pause: called before each window of each iteration; an exception from it ends the descent.

    Raises:
        NonFiniteError: the latents decode to values that are not finite.
    """
    with torch.inference_mode(False), torch.enable_grad():
        descent = _Descent(autoencoder, image, latents, steps, optimisation, pause)
        for iteration in range(optimisation.iterations):
            descent.go(iteration)
        return descent.latents


class _Descent:
    """The latents of one image during the descent, in steps of the quantizer."""

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
        # The distortions of the iteration before; at first, those of rounded latents.
        self._distortions = self._distortions_of(self._reals + self._uniform(self._reals.shape) - 0.5)
        quantization_share = 1 - (encoded / self._distortions)[0].item()
        self._db_per_bit = optimisation.rate_weight * DB_PER_BIT * max(0.0, quantization_share)
        # Where steps are fine, LEARNING_RATE of them would be too short a way.
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
        """Take one step of the descent."""
        if iteration and iteration % ITERATIONS_PER_FIT == 0:
            self._expected_bits = self._fit_bits()
        progress = iteration / self._iterations
        self._optimizer.param_groups[0]["lr"] = self._learning_rate * (1 + math.cos(math.pi * progress)) / 2
        rounded = self._softly_rounded(progress)
        values = rounded.detach().requires_grad_()
        (of_bits,) = torch.autograd.grad(self._expected_bits(values), values)
        # The slope of the distortion in dB, and of the bits for each latent.
        slope = self._distortion_slope(values) + of_bits * (self._db_per_bit / values.numel())
        self._optimizer.zero_grad()
        rounded.backward(slope)
        self._optimizer.step()

    def _fit_bits(self) -> ExpectedBits:
        integers = self._integers()
        model = common_tables().context_model(SideInformation.fit(integers))
        return ExpectedBits(shape_of(integers), model, self._reals.device)

    def _integers(self) -> Integers:
        integers: Integers = self._reals.detach().round().long().cpu().numpy()
        return integers

    def _softly_rounded(self, progress: float) -> Tensor:
        """Return what stands for the integers: reals with noise, later reals drawn towards the nearer integer."""
        if progress < NOISE_SHARE:
            return self._reals + self._uniform(self._reals.shape) - 0.5
        done = (progress - NOISE_SHARE) / (1 - NOISE_SHARE)
        hardness = SOFTEST * (HARDEST / SOFTEST) ** done
        below = self._reals.detach().floor()
        part = (self._reals - below).clamp(1e-4, 1 - 1e-4)
        # 0, 1/2 and 1 stay; all else moves towards the closer end.
        share: Tensor = (hardness * (torch.atanh(part) - torch.atanh(1 - part))).sigmoid()
        return below + share

    def _uniform(self, shape: Sequence[int]) -> Tensor:
        return torch.rand(tuple(shape), generator=self._noise).to(self._reals.device)

    def _distortion_slope(self, values: Tensor) -> Tensor:
        """Map latents (C,h,w), in steps, to the gradient of their image's distortion, in dB.

        A logarithm's slope needs the distortions of all windows already at the first window: the distortions of the
        iteration before stand in for them.
        """
        weights = self._shares * (10 / math.log(10)) / self._distortions
        total, slope = torch.zeros_like(self._shares), torch.zeros_like(values)
        for distortions in self._by_window(values, self._autoencoder.decode_with_gradients):
            slope += torch.autograd.grad(weights @ distortions, values)[0]
            total += distortions.detach()
        self._distortions = self._counted(total)
        return slope

    def _distortions_of(self, values: Tensor) -> Tensor:
        """Map latents (C,h,w), in steps, to the squared error of their image and to 1 - MS-SSIM, both summed."""
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
                "the latents decode to values that are not finite while they are optimised; compress without latent "
                "optimisation"
            )
        return distortions.maximum(torch.tensor(SMALLEST, device=distortions.device) * self._image.numel())


def _windows(side: int) -> Iterator[tuple[int, int, int, int]]:
    """Map a side, in latents, to equal windows: begin and end of each, then begin and end with its halo."""
    count = math.ceil(side / WINDOW)
    for begin, end in pairwise(side * index // count for index in range(count + 1)):
        yield begin, end, max(begin - HALO, 0), min(end + HALO, side)
