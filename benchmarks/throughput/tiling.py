# SPDX-License-Identifier: Apache-2.0
"""A network and a large size -> memory, time and distance of exact tiling, beside diffusers untiled and tiled.

Each runs in a process of its own, one after the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.report.networks import Network
from benchmarks.report.page import Table
from benchmarks.report.rows import Row
from benchmarks.throughput.accuracy import difference
from benchmarks.throughput.apart import Task, run_apart
from benchmarks.throughput.cases import EAGER, LATENTWIRE, Case

MIB = 2**20
MEGAPIXEL = 1e6


@dataclass(frozen=True)
class Tiling:
    """What is measured.

    Attributes:
        network: which.
        height: of the image, in pixels.
        width: likewise.
        dtype: the same for all.
        activation_memory_mib: what latentwire may take for activations.
        device: what they run on.
        threads: of torch.
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
        """Return the cases; the first is what the others are compared with."""
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
    """Map a plan to its rows, and to the reasons why some have no row.

    Args:
        plan: what is measured.
        operations: of `encode` and `decode`.
        folder: for the outputs while they are compared.
        step: told what begins.
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
            if reference is not None:  # the untiled one may have been too large for this machine
                row |= _beside(*reference, row, result)
            rows.append(row)
    return rows, failures


def _beside(first: Row, reference: Tensor, row: Row, result: Tensor) -> Row:
    return {
        "share_of_memory": row["above_idle_bytes"] / first["above_idle_bytes"],
        "share_of_time": row["seconds"] / first["seconds"],
        **asdict(difference(first["operation"], reference, result)),
    }


def tiling_table(rows: Sequence[Row]) -> Table:
    """Make the table of memory and time, each beside the first case's."""
    columns = [
        "", "peak above idle, MiB", "of the untiled", "s/megapixel", "of the untiled", "largest difference", "PSNR, dB",
    ]  # fmt: skip
    lines = [
        [
            f"{row['operation']} {row['width']}x{row['height']}: {row['case']}",
            f"{row['above_idle_bytes'] / MIB:.0f}",
            f"{row['share_of_memory']:.2f}" if "share_of_memory" in row else "",
            f"{row['seconds_per_megapixel']:.2f}",
            f"{row['share_of_time']:.2f}" if "share_of_time" in row else "",
            f"{row['largest']:.2g}" if "largest" in row else "",
            f"{row['psnr_db']:.1f}" if "psnr_db" in row else "",
        ]
        for row in rows
    ]
    note = (
        "One call of each, in processes of their own, one after the other. Idle: the network loaded and warm. The "
        "difference is to the untiled output."
    )
    return Table("In bounded memory", columns, lines, note)
