# SPDX-License-Identifier: Apache-2.0
"""A network and a large size -> memory, time and error of exact tiling, beside diffusers untiled and tiled.

The cases run one after the other, each in a process of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.report.networks import Network
from benchmarks.report.rows import Row
from benchmarks.throughput.accuracy import difference
from benchmarks.throughput.apart import Task, run_apart
from benchmarks.throughput.cases import EAGER, LATENTWIRE, Case

MEGAPIXEL = 1e6


@dataclass(frozen=True)
class Tiling:
    """What is measured.

    Attributes:
        network: the network.
        height: height of the image, in pixels.
        width: width of the image, in pixels.
        dtype: the dtype of all cases.
        activation_memory_mib: latentwire's limit for activations.
        device: the device of all cases.
        threads: threads of torch.
    """

    network: Network
    height: int
    width: int
    dtype: str
    activation_memory_mib: int
    device: str
    threads: int

    @property
    def cases(self) -> Sequence[Case]:
        """Return the cases; the others are compared with the first."""
        memory = {"activation_memory_mib": self.activation_memory_mib}
        return [
            Case(self.network, EAGER, self.dtype),
            Case(self.network, EAGER, self.dtype, tiled=True),
            Case(
                self.network, LATENTWIRE, self.dtype, options=memory,
                name=f"{LATENTWIRE} {self.dtype}, {self.activation_memory_mib} MiB of activations",
            ),
        ]  # fmt: skip


def measure_tiling(
    plan: Tiling, operations: Sequence[str], folder: Path, step: Callable[[str], None]
) -> tuple[list[Row], dict[str, str]]:
    """Map a plan to its rows, and to the reasons of the cases that failed.

    Args:
        plan: what is measured.
        operations: `encode`, `decode` or both.
        folder: where outputs are kept while they are compared.
        step: takes the name of each step that begins.
    """
    rows: list[Row] = []
    failures = {}
    for operation in operations:
        reference: tuple[Row, Tensor] | None = None
        for number, case in enumerate(plan.cases):
            step(f"{operation} {plan.width}x{plan.height}: {case.label}")
            output = folder / f"{operation}-{number}.npy"
            try:
                footprint = run_apart(
                    Task(case, operation, plan.height, plan.width, plan.device, plan.threads, str(output))
                )
            except RuntimeError as error:
                failures[f"{operation}: {case.label}"] = str(error)
                continue
            result = torch.from_numpy(np.load(output))
            row = {
                "network": plan.network.name,
                "case": case.label,
                "operation": operation,
                "width": plan.width,
                "height": plan.height,
                **asdict(footprint),
                "seconds_per_megapixel": footprint.seconds / (plan.width * plan.height / MEGAPIXEL),
            }
            if number == 0:
                reference = (row, result)
            if reference is not None:  # the untiled case may have been too large for this machine
                row |= _beside(*reference, row, result)
            rows.append(row)
    return rows, failures


def _beside(first: Row, reference: Tensor, row: Row, result: Tensor) -> Row:
    return {
        "share_of_memory": row["above_idle_bytes"] / first["above_idle_bytes"],
        "share_of_time": row["seconds"] / first["seconds"],
        **asdict(difference(first["operation"], reference, result)),
    }
