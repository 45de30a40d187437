# SPDX-License-Identifier: Apache-2.0
"""A network and a batch in, finite float32 out, whatever precision it runs in."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latentwire_codec.networks.calling import Call
from latentwire_codec.runtime.placement import DTYPES, Placement
from latentwire_codec.runtime.precision import Runtime
from latentwire_core.errors import NonFiniteError

CPU = torch.device("cpu")


class Gain(nn.Module):
    """Multiplies by the square of its weight in two steps, each of which may overflow."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1, groups=3, bias=False)
        self.second = nn.Conv2d(3, 3, 1, groups=3, bias=False)
        for layer in (self.first, self.second):
            nn.init.constant_(layer.weight, weight)
        self.dropout = nn.Dropout(0.5)
        self.batches: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(x)
        return self.dropout(self.second(self.first(x)))  # type: ignore[no-any-return]


def call(module: Any, batch: Tensor) -> tuple[Tensor, ...]:
    return (module(batch),)


def runtime(module: nn.Module, dtype: torch.dtype, call: Call = call) -> Runtime:
    """Return a runtime on the CPU whose network is a call of the module."""

    def prepare(module: Any, master: Any) -> Any:
        return SimpleNamespace(run=lambda half, batch, pause: call(module, batch), runs_whole=lambda half, shape: False)

    return Runtime(module, Placement(CPU, dtype), prepare)


def images(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()


def values(batch: Tensor) -> list[float]:
    assert batch.dtype == torch.float32
    return batch.flatten(1).mean(dim=1).tolist()


def test_the_module_runs_in_eval_mode_without_gradients() -> None:
    module = Gain(2)
    (output,) = runtime(module, torch.float32).run("decode", images(1, 2, 3))
    assert values(output) == [4, 8, 12]
    assert not module.training
    assert not output.requires_grad
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_on_a_cpu_images_run_one_by_one_in_their_order() -> None:
    module = Gain(1)
    runtime(module, torch.float32).run("decode", images(1, 2, 3))
    assert [values(batch) for batch in module.batches] == [[1], [2], [3]]


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_the_output_is_float32_whatever_the_network_computes_in(dtype: torch.dtype) -> None:
    (output,) = runtime(Gain(1.5), dtype).run("decode", images(1, 2))
    assert values(output) == [2.25, 4.5]


def test_a_network_in_half_precision_computes_in_it() -> None:
    dtypes: set[torch.dtype] = set()

    def watching(module: Any, batch: Tensor) -> tuple[Tensor, ...]:
        dtypes.update((batch.dtype, module.first.weight.dtype))
        return call(module, batch)

    runtime(Gain(1), torch.float16, watching).run("decode", images(1))
    assert dtypes == {torch.float16}


def test_what_overflows_in_float16_is_computed_again_in_float32_and_told() -> None:
    told: list[list[int]] = []
    running = runtime(Gain(300.1), torch.float16)
    (output,) = running.run("decode", images(0.1, 1, 0.01, 2), told.append)
    assert told == [[1, 3]]
    assert values(output) == pytest.approx([9006, 90060, 900.6, 180120], rel=1e-3)
    # Those that were computed again have the exact values, the others those of float16.
    (exact,) = runtime(Gain(300.1), torch.float32).run("decode", images(0.1, 1, 0.01, 2))
    assert [torch.equal(a, b) for a, b in zip(output, exact, strict=True)] == [False, True, False, True]


def test_nothing_is_told_where_nothing_overflows() -> None:
    told: list[list[int]] = []
    runtime(Gain(10), torch.float16).run("decode", images(1, 2), told.append)
    assert told == []


def test_bfloat16_has_the_range_of_float32() -> None:
    told: list[list[int]] = []
    running = runtime(Gain(1024), torch.bfloat16)
    (output,) = running.run("decode", images(1), told.append)
    assert told == []
    assert values(output) == [2.0**20]


def test_one_of_several_outputs_that_is_not_finite_has_all_computed_again() -> None:
    def two(module: Any, batch: Tensor) -> tuple[Tensor, ...]:
        return batch, module(batch)

    told: list[list[int]] = []
    running = runtime(Gain(300), torch.float16, two)
    first, second = running.run("decode", images(1, 0.3), told.append)
    assert told == [[0]]
    assert values(first) == pytest.approx([1, 0.3], rel=1e-3)
    assert values(second) == pytest.approx([90000, 27000], rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_what_overflows_even_in_float32_is_refused_with_its_magnitude(dtype: torch.dtype) -> None:
    told: list[list[int]] = []
    running = runtime(Gain(1e4), dtype)
    with pytest.raises(NonFiniteError, match=r"even in float32; the input's largest magnitude is 3e\+31"):
        running.run("decode", images(1, -3e31, 2), told.append)
    assert bool(told) == (dtype != torch.float32)


def test_the_module_it_was_given_stays_float32() -> None:
    module = Gain(300)
    running = runtime(module, torch.float16)
    running.run("decode", images(1))
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
