# SPDX-License-Identifier: Apache-2.0
"""The objective of a codec: squared error, and the bits of the `.lat` coder, at all steps at once.

    images ─ encoder ─ latents ─ DifferentiableCoder ─ latents ─ decoder ─ prediction ─ squared error D ─┐
                                  │   step s: drawn for each image                                        ├ total
                                  └─ bits R ──────────────────────────────────────────────────────────────┘

    J = D + lambda s^2 R / values of the image

Neither network knows the step, so one set of weights serves all rates. At high rates a step s costs D = s^2 / 12, and
a bit halves the step: lambda = ln 2 / 6 = 0.1155. With this lambda the gain of each latent is pinned: no scale of a
channel has to be learned.
"""

import math

import torch
from torch import Generator, Tensor

from latentwire_codec.metrics.similarity import ms_ssim
from latentwire_train.config import LossConfig
from latentwire_train.loss.coding import DifferentiableCoder
from latentwire_train.loss.objective import Objective, Outcome, psnr_of_pixels
from latentwire_train.networks import Network

FLOOR = 0.002
"""J of an image that is all but free, over the step: such an image does not outweigh all others."""
JUDGED = {"fine": 1 / 6, "middle": 1 / 2, "coarse": 5 / 6}
"""The steps at which held-out images are measured: places in the range of steps, on a logarithmic scale."""


class RateObjective(Objective):
    """Maps images to the weighted J of their steps.

    J grows with the step and differs from image to image. So an image has the weight 1 / sqrt((J + 0.002 s) s): to a
    half, all steps and all contents count alike, as they do in a mean of dB.

    Args:
        network: the network that is trained.
        config: the weights of the loss and the range of the steps.
        shape: (C,h,w) of the latents of one image.
        autocast: the dtype that the network computes in; None: float32.
    """

    def __init__(
        self, network: Network, config: LossConfig, shape: tuple[int, int, int], autocast: torch.dtype | None = None
    ) -> None:
        super().__init__(network, autocast)
        self._config = config
        self._coder = DifferentiableCoder(shape)

    def forward(self, images: Tensor, noise: Generator, step: int) -> Outcome:
        """Map images (B,3,H,W) in [-1,1], noise on their device, and the number of the step to the outcome.

        The steps of a batch are stratified: each lies in another of B equal parts of the range. Among the parts are
        `mse`, `bpp` (bits per pixel) and `psnr`, means over all steps, and `ms_ssim` where it has a weight.
        """
        count = len(images)
        device = images.device
        places = torch.randperm(count, generator=noise, device=device) + torch.rand(
            count, generator=noise, device=device
        )
        steps = self._steps(places / count)
        mean, _ = self.encode(images)
        coding = self._coder(mean, steps)
        prediction = self.decode(coding.latents)
        errors, costs = self._costs(prediction, images, steps, coding.bits)
        weights = _weights(costs.detach(), steps)
        total = (weights * costs).mean()
        bits_per_pixel = coding.bits.detach().mean() / images[0, 0].numel()
        parts = {"mse": errors.detach().mean(), "bpp": bits_per_pixel}
        if share := self._config.weights.ms_ssim:
            dissimilar = 1 - ms_ssim((prediction + 1) / 2, (images + 1) / 2, least=1e-3).mean(1)
            # A relative change of 1 - MS-SSIM counts as much as this share of a relative change of J.
            relative = dissimilar / dissimilar.detach().clamp(min=1e-3)
            total = total + share * ((weights * costs).detach() * relative).mean()
            parts["ms_ssim"] = dissimilar.detach().mean()
        parts["psnr"] = (10 * torch.log10(4 / errors.detach())).mean()
        return Outcome(prediction, total, parts)

    def judge(self, network: Network, images: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Map one held-out image to its reconstruction and its figures: see `Objective.judge`.

        The figures: `psnr` without a quantizer, dB; at three steps, such as `psnr_fine` and `bpp_fine`, PSNR and bits
        per pixel; `loss`, the mean of the weighted J at these steps.
        """
        mean = network.encoder(images).float().chunk(2, dim=1)[0]
        decoded = network.decoder(mean).float()
        figures = {"psnr": psnr_of_pixels(images, decoded), "loss": 0.0}
        for name, place in JUDGED.items():
            steps = self._steps(torch.tensor([place], device=images.device))
            coding = self._coder(mean, steps)
            again = network.decoder(coding.latents).float()
            _, costs = self._costs(again, images, steps, coding.bits)
            figures["loss"] += (_weights(costs, steps) * costs).item() / len(JUDGED)
            figures[f"psnr_{name}"] = psnr_of_pixels(images, again)
            figures[f"bpp_{name}"] = coding.bits.item() / images[0, 0].numel()
        return decoded, figures

    def _steps(self, places: Tensor) -> Tensor:
        """Map places in the range, 0..1, to steps: the finest at 0, the coarsest at 1."""
        finest, coarsest = self._config.steps
        return finest * (coarsest / finest) ** places

    def _costs(self, decoded: Tensor, images: Tensor, steps: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the squared error of each image, and its J, (B,) each."""
        weights = self._config.weights
        errors = (decoded - images).square().mean((1, 2, 3))
        return errors, weights.mse * errors + weights.rate * steps.square() * bits / images[0].numel()


def _weights(costs: Tensor, steps: Tensor) -> Tensor:
    return ((costs + FLOOR * steps) * steps).rsqrt()


def quantization_logvar(steps: tuple[float, float]) -> float:
    """Return the log-variance s^2 / 12 of rounding to the middle of a range of steps, on a logarithmic scale."""
    return math.log(steps[0] * steps[1] / 12)
