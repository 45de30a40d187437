# SPDX-License-Identifier: Apache-2.0
"""An objective -> the compiled objective where its gradients are the same, else the objective uncompiled.

The check is needed: on a CPU, torch.compile (torch 2.13) gave useless gradients for a bfloat16 training step.
"""

import copy
import logging
from typing import cast

import torch
from torch import Tensor, nn

from latentwire_train.devices import draw_on
from latentwire_train.loss.objective import Objective

_log = logging.getLogger("latentwire.train")

MIN_COSINE = 0.99
MAX_NORM_RATIO = 1.05


def compile_checked(objective: Objective, shape: torch.Size, device: torch.device) -> Objective:
    """Compile encoder and decoder, sharing weights; where it fails or the gradients differ, warn and stay eager.

    Gradients are compared on images of the shape (B,3,S,S).
    """
    compiled = copy.copy(objective)
    compiled._modules = dict(objective._modules)
    images = torch.rand(shape, generator=draw_on(device, 0), device=device) * 2 - 1
    try:
        for name in ("encoder", "decoder"):
            compiled._modules[name] = cast(nn.Module, torch.compile(getattr(objective, name)))
        ours, theirs = (_gradient(candidate, images) for candidate in (objective, compiled))
    except Exception as error:
        _log.warning("torch.compile failed, training eagerly: %s", str(error).splitlines()[0])
        return objective
    cosine = float(torch.nn.functional.cosine_similarity(ours, theirs, dim=0))
    ratio = float(theirs.norm() / ours.norm())
    if cosine < MIN_COSINE or not 1 / MAX_NORM_RATIO < ratio < MAX_NORM_RATIO:
        _log.warning(
            "the compiled gradients differ from the eager ones (cosine %.4f, norm ratio %.3f), training eagerly",
            cosine, ratio,
        )  # fmt: skip
        return objective
    return compiled


def _gradient(objective: Objective, images: Tensor) -> Tensor:
    """Map images to the gradient of the loss, one vector; the objective stays as it is."""
    objective.eval()  # the moments stay as they are
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    outcome = objective(images, draw_on(images.device, 0), 0)
    gradients = torch.autograd.grad(outcome.total, parameters, allow_unused=True)
    objective.train()
    return torch.cat([g.float().flatten() for g in gradients if g is not None])
