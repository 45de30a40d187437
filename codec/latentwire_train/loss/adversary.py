# SPDX-License-Identifier: Apache-2.0
"""Images and their reconstructions -> the adversarial terms of the loss, from a discriminator that learns as well.

decoder:        ... + w * hinge_generator_loss(D(fake)) + v * feature_matching(D.features(real), D.features(fake))
discriminator:  hinge_discriminator_loss(D(real), D(fake.detach()))
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentwire_core.errors import TensorError
from latentwire_train.config import LossConfig, ScheduleConfig
from latentwire_train.devices import Devices

BETAS = (0.5, 0.9)
"""Less momentum than the network's: the discriminator follows a moving target (VQGAN, arXiv 2012.09841)."""


class PatchDiscriminator(nn.Module):
    """PatchGAN: maps images (B,3,H,W) in [-1,1] to one logit per overlapping patch, (B,1,h,w); high means real.

    Convolutions of 4x4: `layers` that halve the size, then two that do not; a patch is 70x70 pixels with 3 layers. The
    first has `width` channels; they double up to 8 times that. Group normalisation takes the place of batch
    normalisation, so that a logit depends on its own image alone.

    Source: Isola et al., Image-to-Image Translation with Conditional Adversarial Networks (arXiv 1611.07004).
    """

    def __init__(self, channels: int = 3, width: int = 64, layers: int = 3, norm: bool = True) -> None:
        super().__init__()
        self.min_side = 3 * 2**layers
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        stages: list[nn.Module] = [nn.Sequential(nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2))]
        for i, (n_in, n_out) in enumerate(pairwise(widths), start=1):
            conv = nn.Conv2d(n_in, n_out, 4, stride=2 if i < layers else 1, padding=1, bias=not norm)
            # 16 channels a group: statistics of several maps, so that small crops have enough values.
            normalise = nn.GroupNorm(max(n_out // 16, 1), n_out) if norm else nn.Identity()
            stages.append(nn.Sequential(conv, normalise, nn.LeakyReLU(0.2)))
        stages.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.stages = nn.ModuleList(stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, images: Tensor) -> list[Tensor]:
        """Map images to each stage's output, fine to coarse, the logits last.

        Raises:
            TensorError: a side is below 3 * 2^layers.
        """
        height, width = images.shape[-2:]
        if min(height, width) < self.min_side:
            raise TensorError(f"image is {width}x{height}; the discriminator needs each side >= {self.min_side}")
        outputs = [images]
        for stage in self.stages:
            outputs.append(stage(outputs[-1]))
        return outputs[1:]

    def forward(self, images: Tensor) -> Tensor:
        """Map images to logits (B,1,h,w)."""
        return self.features(images)[-1]


def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Map logits to (mean max(0, 1 - real) + mean max(0, 1 + fake)) / 2: 0 when real >= 1 and fake <= -1.

    Source: Lim and Ye, Geometric GAN (arXiv 1705.02894); the half as in VQGAN (arXiv 2012.09841).
    """
    return (F.relu(1 - real_logits.float()).mean() + F.relu(1 + fake_logits.float()).mean()) / 2


def hinge_generator_loss(fake_logits: Tensor) -> Tensor:
    """Map the logits of decoded images to -mean: any sign, lower is more convincing. Source: arXiv 1705.02894."""
    return -fake_logits.float().mean()


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Map two results of `PatchDiscriminator.features` to the L1 distance of all but the logits: mean over stages.

    Gradients flow to `fake` only.

    Source: Wang et al., High-Resolution Image Synthesis with Conditional GANs (pix2pixHD, arXiv 1711.11585).
    """
    pairs = zip(real[:-1], fake[:-1], strict=True)
    return torch.stack([F.l1_loss(f.float(), r.detach().float()) for r, f in pairs]).mean()


class Adversary:
    """A PatchGAN discriminator and its optimizer; its terms have constant weights (as in LiteVAE, arXiv 2405.14477)."""

    def __init__(self, loss: LossConfig, schedule: ScheduleConfig) -> None:
        self._weights = loss.weights
        self._own = PatchDiscriminator(width=loss.discriminator_width)
        self._shared: nn.Module = self._own
        self._optimizer = torch.optim.AdamW(
            self._own.parameters(), lr=0.0, betas=BETAS, weight_decay=schedule.weight_decay
        )

    def to(self, devices: Devices) -> "Adversary":
        """Move to the device of this process and share gradients with the others; return self."""
        self._own.to(devices.device)
        self._shared = devices.share(self._own)
        return self

    def judge(self, images: Tensor, prediction: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Map images and their reconstructions to the adversarial part of the network's loss, and its terms by name."""
        self._own.requires_grad_(False)
        fake = self._own.features(prediction)
        adversarial = hinge_generator_loss(fake[-1])
        total, parts = self._weights.adversarial * adversarial, {"adversarial": adversarial.detach()}
        if self._weights.feature_matching:
            with torch.no_grad():
                real = self._own.features(images)
            matching = feature_matching(real, fake)
            total = total + self._weights.feature_matching * matching
            parts["feature_matching"] = matching.detach()
        self._own.requires_grad_(True)
        return total, parts

    def learn(self, images: Tensor, prediction: Tensor, rate: float) -> dict[str, Tensor]:
        """Make a step of the discriminator on images and detached reconstructions; return its loss by name."""
        self._optimizer.zero_grad(set_to_none=True)
        # Together: a shared module takes one forward pass for each backward pass.
        real, fake = self._shared(torch.cat([images, prediction])).chunk(2)
        loss = hinge_discriminator_loss(real, fake)
        loss.backward()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return {"discriminator": loss.detach()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for `load_state_dict`."""
        return {"discriminator": self._own.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state from `state_dict`."""
        self._own.load_state_dict(state["discriminator"])
        self._optimizer.load_state_dict(state["optimizer"])
