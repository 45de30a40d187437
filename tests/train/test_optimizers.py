# SPDX-License-Identifier: Apache-2.0
"""Tests of the steps that gradients become."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from latentwire_train.config import OptimizerName, ScheduleConfig
from latentwire_train.optimizers import MIN_SIDE, Muon, build_optimizers, orthogonalized


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_an_orthogonalized_matrix_keeps_its_directions_and_evens_its_singular_values(
    rows: int, columns: int, seed: int
) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    found = u.T @ orthogonalized(matrix) @ vt.T
    gains = found.diagonal()
    assert (found - gains.diag()).abs().max() < 1e-6
    assert gains[s > 0.02 * s.norm()].min() > 0.5
    assert gains.max() < 1.3


def test_an_orthogonalized_row_of_zeros_stays_zero() -> None:
    matrix = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    matrix[10:] = 0
    assert torch.equal(orthogonalized(matrix)[10:], torch.zeros(10, 30))


def test_muon_steps_are_as_long_as_adamws() -> None:
    weight = nn.Parameter(torch.zeros(32, 16, 3, 3))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    Muon([weight], lr=0.01).step()
    assert 0.001 < weight.square().mean().sqrt() < 0.003  # 0.2 lr


def test_muon_takes_the_inner_matrices_and_adamw_the_ends_and_biases() -> None:
    module = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.Conv2d(32, MIN_SIDE - 1, 3))
    adam, muon = build_optimizers(module, ScheduleConfig(optimizer=OptimizerName.MUON, weight_decay=0.1))
    assert [p.shape for group in muon.param_groups for p in group["params"]] == [
        module[0].weight.shape,
        module[1].weight.shape,
    ]
    assert isinstance(adam, torch.optim.AdamW)
    decays = {group["weight_decay"]: [p.ndim for p in group["params"]] for group in adam.param_groups}
    assert decays == {0.1: [4], 0.0: [1, 1, 1]}
    (alone,) = build_optimizers(module, ScheduleConfig())
    assert sum(len(group["params"]) for group in alone.param_groups) == 6


@pytest.mark.parametrize("optimizer", list(OptimizerName))
def test_each_optimizer_solves_a_least_squares_problem(optimizer: OptimizerName) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(24, 24, generator=generator)
    module = nn.Linear(24, 24)
    nn.init.zeros_(module.weight)
    schedule = ScheduleConfig(optimizer=optimizer, steps=300, learning_rate=0.1, warmup_steps=0)
    optimizers = build_optimizers(module, schedule)
    losses = []
    for step in range(300):
        x = torch.randn(64, 24, generator=generator)
        loss = (module(x) - x @ target).square().mean()
        losses.append(loss.item())
        module.zero_grad()
        loss.backward()
        for each in optimizers:
            for group in each.param_groups:
                group["lr"] = schedule.learning_rate_at(step, step / 300)
            each.step()
    assert losses[-1] < 0.01 * losses[0]


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    schedule = ScheduleConfig(learning_rate=1.0, warmup_steps=10, final_share=0.1)
    assert schedule.learning_rate_at(0, 0.0) == pytest.approx(0.1)
    assert schedule.learning_rate_at(9, 0.0) == pytest.approx(1.0)
    assert schedule.learning_rate_at(500, 0.5) == pytest.approx(0.55)
    assert schedule.learning_rate_at(999, 1.0) == pytest.approx(0.1)
