# SPDX-License-Identifier: Apache-2.0
"""Cases and a size -> a row for each case and operation: seconds, arithmetic, error against the reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.report.photographs import photograph
from benchmarks.report.rows import Row
from benchmarks.report.timing import take_turns, warmed_up
from benchmarks.throughput.accuracy import difference
from benchmarks.throughput.arithmetic import TERA, MatrixProduct, operations
from benchmarks.throughput.cases import OPERATIONS, Case, Runner
from latentwire_codec.images import pixels

Key = tuple[str, ...]
"""The key of a case and an operation, or of a product of matrices."""


@dataclass(frozen=True)
class Plan:
    """How the sizes are measured.

    Attributes:
        rounds: how often each call is timed.
        limit_s: seconds for the rounds of one size.
        batch: images in one call.
        products: products of matrices, by dtype: the limit of the machine.
    """

    rounds: int
    limit_s: float
    batch: int
    products: Mapping[str, MatrixProduct]


@dataclass(frozen=True)
class Measured:
    """Rows and rates of one size.

    Attributes:
        rows: a row for each case and operation; rows of a case that was left out hold the reason only.
        rates: TFLOP/s of the matrix products, by dtype, one number for each round.
    """

    rows: list[Row]
    rates: dict[str, list[float]]


def measure_size(
    plan: Plan,
    side: int,
    cases: Sequence[Case],
    runners: Mapping[tuple[str, str], Runner | str],
    step: Callable[[str], None],
) -> Measured:
    """Map cases to their rows at one size, all of them timed in turn.

    Args:
        plan: how the sizes are measured.
        side: side of the square images, in pixels.
        cases: the first case of each network is the reference of its others.
        runners: runners by the keys of the cases; a text says why a case is left out.
        step: takes the name of each step that begins.
    """
    images = pixels.to_float(torch.from_numpy(photograph(side, side)).unsqueeze(0)).repeat(plan.batch, 1, 1, 1)
    calls: dict[Key, Callable[[], object]] = {("product", dtype): each.run for dtype, each in plan.products.items()}
    step(f"{side}x{side}: warming up")
    seconds = {key: warmed_up(call)[1] for key, call in calls.items()}
    rows: dict[Key, Row] = {}
    references: dict[Key, Tensor] = {}
    for case in cases:
        runner = runners[case.key]
        for operation in OPERATIONS:
            key = (*case.key, operation)
            rows[key] = _named(case, side, operation)
            if isinstance(runner, str):
                rows[key]["left_out"] = runner
                continue
            given = images if operation == "encode" else references[case.network.name, "encode"]
            call = partial(runner.run, operation, given)
            output, seconds[key] = warmed_up(call)
            calls[key] = call
            reference = references.setdefault((case.network.name, operation), output)
            rows[key] |= {"dtype": runner.dtype, **asdict(difference(operation, reference, output))}
    samples = take_turns(
        calls, seconds, plan.rounds, plan.limit_s, lambda number: step(f"{side}x{side}: round {number}")
    )
    rates = {
        dtype: [product.operations / each / TERA for each in samples["product", dtype]]
        for dtype, product in plan.products.items()
    }
    for case in cases:
        for operation in OPERATIONS:
            key = (*case.key, operation)
            if key in samples:
                work = plan.batch * operations(case.network, operation, side, side)
                rows[key] |= _speed(plan.batch, work, samples[key], rates.get(rows[key]["dtype"]))
    return Measured(list(rows.values()), rates)


def _named(case: Case, side: int, operation: str) -> Row:
    return {
        "network": case.network.name,
        "case": case.label,
        "engine": case.engine,
        "width": side,
        "height": side,
        "operation": operation,
    }


def _speed(batch: int, work: int, seconds: Sequence[float], rates: Sequence[float] | None) -> dict[str, Any]:
    """Map seconds of each round, and the machine's rate in each round, to the numbers of a row."""
    taken = median(seconds)
    reached = [work / each / TERA for each in seconds]
    shares = None if rates is None else [one / limit for one, limit in zip(reached, rates, strict=True)]
    return {
        "batch": batch,
        "seconds": list(seconds),
        "median_s": taken,
        "images_per_s": batch / taken,
        "tflop": work / TERA,
        "tflop_per_s": work / taken / TERA,
        "share_of_matrix_rate": None if shares is None else median(shares),
    }
