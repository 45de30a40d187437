# SPDX-License-Identifier: Apache-2.0
"""Tests of the check that compiled gradients have to pass."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latentwire_train.compiling import compile_checked
from latentwire_train.config import TrainingConfig
from latentwire_train.loss.objective import Objective
from latentwire_train.loss.variational import VariationalObjective
from latentwire_train.networks import build_network

SHAPE = torch.Size((2, 3, 32, 32))


class Doubled(nn.Module):
    """A network whose output is right and whose gradient is not."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return 2 * y - y.detach()


@pytest.fixture
def objective(tiny: Callable[..., TrainingConfig]) -> Objective:
    config = tiny(loss={"weights": {"l1": 1.0, "kl": 1e-3}, "quantization_step": 0.25})
    network = build_network(config.model, 32)
    return VariationalObjective(network, config.loss, config.model.kind, 4)


def fail(module: nn.Module) -> Any:
    raise RuntimeError("no compiler")


@pytest.mark.parametrize(("compiler", "reason"), [(Doubled, "norm ratio"), (fail, "no compiler")])
def test_what_cannot_be_trusted_is_not_used(
    compiler: Callable[[nn.Module], Any],
    reason: str,
    objective: Objective,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch, "compile", compiler)
    with caplog.at_level(logging.WARNING, "latentwire.train"):
        assert compile_checked(objective, SHAPE, torch.device("cpu")) is objective
    assert reason in caplog.text
    assert "training eagerly" in caplog.text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
def test_compiled_gradients_that_agree_are_used(objective: Objective) -> None:
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    compiled = compile_checked(objective, SHAPE, torch.device("cpu"))
    assert compiled is not objective
    assert [id(p) for p in compiled.parameters()] == [id(p) for p in objective.parameters()]
    assert compiled.moments is objective.moments
    assert all(torch.equal(before[name], tensor) for name, tensor in objective.state_dict().items())
