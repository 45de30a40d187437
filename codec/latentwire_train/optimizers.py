# SPDX-License-Identifier: Apache-2.0
"""A network's parameters and their gradients -> a step: AdamW for all, or Muon for matrices and AdamW for the others.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) makes every singular value of a matrix's step
about 1, so that rare directions of the gradient are learned as fast as common directions. A convolution counts as the
matrix (out, in * kh * kw). torch's own Muon takes 2-D parameters only, in bfloat16, which most CPUs emulate.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from latentwire_train.config import OptimizerName, ScheduleConfig

MIN_SIDE = 16
"""AdamW takes matrices with a shorter side: the ends of a network, whose few rows differ in meaning."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
RMS_OF_ADAM = 0.2
"""A step is scaled to the root mean square of AdamW's steps, so that one learning rate fits both."""


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal: step = -lr * 0.2 * sqrt(longer side) * U V^T of the momentum U S V^T.

    The parameters have two dimensions or more; the first dimension is the output's. Learning rate and decoupled weight
    decay are as AdamW's. `momentum` is the decay of the gradient's moving mean, with Nesterov's look ahead.

    Source: the factor 0.2 is Liu et al., Muon is Scalable for LLM Training (arXiv 2502.16982), section 2.2.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make a step along the gradients; `closure` is not called."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(momentum, group["momentum"]).flatten(1)
                direction = orthogonalized(ahead).reshape(parameter.shape)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"] * RMS_OF_ADAM * math.sqrt(max(ahead.shape)))


def orthogonalized(matrix: Tensor) -> Tensor:
    """Map a matrix U S V^T, float (m,n), to about U V^T: its singular values become 0.7 to 1.2, tiny ones less.

    The Newton-Schulz iteration X <- (a + b XX^T + c (XX^T)^2) X runs five times. Each factor is a polynomial of the
    first XX^T, a square matrix of the short side of X. The factors are multiplied first, and X is multiplied once.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    one = torch.eye(x.shape[0], device=x.device, dtype=x.dtype)
    gram, product = x @ x.T, one
    for _ in range(NEWTON_SCHULZ_STEPS):
        factor = a * one + b * gram + c * (gram @ gram)
        product = factor @ product
        gram = factor @ gram @ factor
    even: Tensor = product @ x
    return even.T if matrix.shape[0] > matrix.shape[1] else even


def build_optimizers(module: nn.Module, schedule: ScheduleConfig) -> list[torch.optim.Optimizer]:
    """Map a network to its optimizers; parameters of one dimension are never decayed."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in module.parameters():
        sides = parameter.shape[0], parameter.numel() // max(1, parameter.shape[0])
        takes = schedule.optimizer is OptimizerName.MUON and parameter.ndim > 1 and min(sides) >= MIN_SIDE
        (matrices if takes else others).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, betas=schedule.betas)
    ]
    if matrices:
        optimizers.append(Muon(matrices, lr=0.0, weight_decay=schedule.weight_decay))
    return optimizers
