# SPDX-License-Identifier: Apache-2.0
"""Cases and a size -> a row for each case and operation: seconds, arithmetic, error against the reference."""

import math
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.report.pictures import photograph
from benchmarks.report.rows import Row
from benchmarks.report.timing import Step, take_turns, warmed_up
from benchmarks.throughput.cases import OPERATIONS, TERA, Case, MatrixProduct, Runner, operations
from latentwire_codec.images import pixels

CAP_DB = 200.0  # the PSNR of equal tensors: JSON has no infinity
IMAGE_RANGE = 2.0  # images are in [-1, 1]

Key = tuple[str, ...]  # the key of a case and an operation, or of a product of matrices


@dataclass(frozen=True)
class Difference:
    """How far a tensor is from another."""

    largest: float  # the largest absolute difference
    psnr_db: float  # its peak is 2 for images, and the range of the reference for latents


def difference(operation: str, reference: Tensor, other: Tensor) -> Difference:
    """Map two tensors of one shape, latents for `encode` and images for `decode`, to their difference."""
    error = (other.double() - reference.double()).abs()
    mean_square = float(error.square().mean())
    if mean_square == 0:
        return Difference(0.0, CAP_DB)
    span = IMAGE_RANGE if operation == "decode" else float(reference.max() - reference.min())
    return Difference(float(error.max()), min(CAP_DB, 10 * math.log10(span * span / mean_square)))


def measure_size(
    options: Namespace,
    products: Mapping[str, MatrixProduct],
    side: int,
    cases: Sequence[Case],
    runners: Mapping[tuple[str, str], Runner | str],
    step: Step,
) -> tuple[list[Row], dict[str, list[float]]]:
    """Map cases and square images of `side` pixels a side to rows and rates, all of them timed in turn.

    The first case of each network is the reference of its others. `runners` has a runner by the key of each case, or
    a text that says why the case is left out: its rows hold that reason only. Products of matrices, by dtype, are the
    limit of the machine; the rates are their TFLOP/s, one number for each round.
    """
    images = pixels.to_float(torch.from_numpy(photograph(side, side)).unsqueeze(0)).repeat(options.batch, 1, 1, 1)
    calls: dict[Key, Callable[[], object]] = {("product", dtype): each.run for dtype, each in products.items()}
    step(f"{side}x{side}: warming up")
    seconds = {key: warmed_up(call)[1] for key, call in calls.items()}
    rows: dict[Key, Row] = {}
    references: dict[Key, Tensor] = {}
    for case in cases:
        runner = runners[case.key]
        for operation in OPERATIONS:
            key = (*case.key, operation)
            rows[key] = {**case.row(operation, side, side), "engine": case.engine}
            if isinstance(runner, str):
                rows[key]["left_out"] = runner
                continue
            given = images if operation == "encode" else references[case.network.name, "encode"]
            calls[key] = partial(runner.run, operation, given)
            output, seconds[key] = warmed_up(calls[key])
            assert isinstance(output, Tensor)
            reference = references.setdefault((case.network.name, operation), output)
            rows[key] |= {"dtype": runner.dtype, **asdict(difference(operation, reference, output))}
    rounds = take_turns(
        calls, seconds, options.repeats, options.seconds, lambda each: step(f"{side}x{side}: round {each}")
    )
    rates = {
        dtype: [product.operations / each / TERA for each in rounds["product", dtype]]
        for dtype, product in products.items()
    }
    for case in cases:
        for operation in OPERATIONS:
            key = (*case.key, operation)
            if key in rounds:
                work = options.batch * operations(case.network, operation, side, side)
                rows[key] |= _speed(options.batch, work, rounds[key], rates.get(rows[key]["dtype"]))
    return list(rows.values()), rates


def _speed(batch: int, work: int, seconds: Sequence[float], rates: Sequence[float] | None) -> dict[str, Any]:
    """Map seconds of each round, and the machine's rate in each round, to the numbers of a row."""
    taken = median(seconds)
    shares = [work / each / TERA / limit for each, limit in zip(seconds, rates or (), strict=rates is not None)]
    return {
        "batch": batch,
        "seconds": list(seconds),
        "median_s": taken,
        "images_per_s": batch / taken,
        "tflop": work / TERA,
        "tflop_per_s": work / taken / TERA,
        "share_of_matrix_rate": median(shares) if shares else None,
    }
