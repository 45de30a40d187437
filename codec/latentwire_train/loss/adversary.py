# SPDX-License-Identifier: Apache-2.0
"""Images and their reconstructions -> the adversarial terms of the loss, from a discriminator that learns as well."""

from typing import Any

import torch
from torch import Tensor, nn

from latentwire_train.config import LossConfig, ScheduleConfig
from latentwire_train.devices import Devices
from latentwire_train.loss.discriminator import (
    PatchDiscriminator,
    feature_matching,
    hinge_discriminator_loss,
    hinge_generator_loss,
)

BETAS = (0.5, 0.9)
"""Less momentum than the network's: the discriminator follows a moving target (VQGAN, arXiv 2012.09841)."""


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
