# SPDX-License-Identifier: Apache-2.0
"""A case in a process of its own -> its peak memory above that of the idle process, its seconds and its output.

    python -m benchmarks.throughput.apart < task.json

`run_apart` starts the process: a peak only means something in a process that has run nothing else. Exact tiling stands
beside diffusers untiled and tiled; the cases run one after the other.
"""

import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.report.environment import ROOT, status_bytes
from benchmarks.report.networks import Network
from benchmarks.report.pictures import photograph
from benchmarks.report.rows import Row
from benchmarks.report.timing import Step
from benchmarks.throughput.cases import EAGER, LATENTWIRE, Case
from benchmarks.throughput.measuring import difference
from latentwire_codec.images import pixels
from latentwire_codec.runtime.placement import Placement

CLEAR_REFERENCES = Path("/proc/self/clear_refs")
WARM_UP_SIDE = 64
MEGAPIXEL = 1e6


@dataclass(frozen=True)
class Task:
    """The task of the process."""

    case: Case
    operation: str  # `encode` or `decode`; `decode` gets random latents, the same for each case
    side: int  # of the square image, in pixels
    device: str
    threads: int  # threads of torch
    output: str = ""  # path of the .npy file for the result; empty: the result is not kept


@dataclass(frozen=True)
class Footprint:
    """Memory and time of the process: resident memory, on a GPU the memory of the GPU."""

    idle_bytes: int  # with the network loaded and warm, before the call
    above_idle_bytes: int  # the peak during the call, less `idle_bytes`
    seconds: float  # duration of the call
    dtype: str  # dtype of the arithmetic


def can_measure() -> bool:
    """Return whether this system can reset the peak of a process's memory."""
    return CLEAR_REFERENCES.exists()


def run_apart(task: Task) -> Footprint:
    """Run a task in a process of its own; raise RuntimeError where the process failed."""
    command = [sys.executable, "-m", __spec__.name]
    described = json.dumps(asdict(task))
    done = subprocess.run(command, input=described, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing; it may have been killed for its memory"])[-1]
        raise RuntimeError(f"{task.case.label} at {task.side}x{task.side} ended with {done.returncode}: {last}")
    return Footprint(**json.loads(done.stdout.splitlines()[-1]))


def perform(task: Task) -> Footprint:
    """Do a task in this process."""
    torch.set_num_threads(task.threads)
    device = Placement.choose(task.device).device
    runner = task.case.load(task.device)
    small = runner.encode(_image(WARM_UP_SIDE))
    runner.decode(small)
    if task.operation == "encode":
        batch = _image(task.side)
    else:
        side = task.side // (WARM_UP_SIDE // small.shape[2])
        batch = torch.randn((1, small.shape[1], side, side), generator=torch.Generator().manual_seed(0))
    idle = _rest(device)
    started = time.perf_counter()
    result = runner.run(task.operation, batch)
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else status_bytes("VmHWM")
    if task.output:
        np.save(task.output, result.numpy())
    return Footprint(idle, peak - idle, seconds, runner.dtype)


def _image(side: int) -> torch.Tensor:
    return pixels.to_float(torch.from_numpy(photograph(side, side)).unsqueeze(0))


def _rest(device: torch.device) -> int:
    """Return free memory to the system, reset the peak, and return the bytes in use."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError, AttributeError):  # glibc keeps memory that loading freed; it would hide as much of the peak
        ctypes.CDLL(None).malloc_trim(0)
    CLEAR_REFERENCES.write_text("5")
    return status_bytes("VmRSS")


@dataclass(frozen=True)
class Tiling:
    """What is measured."""

    network: Network
    side: int  # of the square image, in pixels
    dtype: str  # the dtype of all cases
    activation_memory_mib: int  # latentwire's limit for activations
    device: str
    threads: int  # threads of torch

    @property
    def cases(self) -> Sequence[Case]:
        """Return the cases; the others are compared with the first."""
        memory = {"activation_memory_mib": self.activation_memory_mib}
        name = f"{LATENTWIRE} {self.dtype}, {self.activation_memory_mib} MiB of activations"
        return [
            Case(self.network, EAGER, self.dtype),
            Case(self.network, EAGER, self.dtype, tiled=True),
            Case(self.network, LATENTWIRE, self.dtype, options=memory, name=name),
        ]


def measure_tiling(
    plan: Tiling, operations: Sequence[str], folder: Path, step: Step
) -> tuple[list[Row], dict[str, str]]:
    """Map a plan to its rows, and to the reasons of the cases that failed; outputs are kept in a folder."""
    rows: list[Row] = []
    failures = {}
    for operation in operations:
        reference: tuple[Row, Tensor] | None = None
        for number, case in enumerate(plan.cases):
            step(f"{operation} {plan.side}x{plan.side}: {case.label}")
            output = folder / f"{operation}-{number}.npy"
            try:
                task = Task(case, operation, plan.side, plan.device, plan.threads, str(output))
                footprint = run_apart(task)
            except RuntimeError as error:
                failures[f"{operation}: {case.label}"] = str(error)
                continue
            result = torch.from_numpy(np.load(output))
            row = {**case.row(operation, plan.side, plan.side), **asdict(footprint)}
            row["seconds_per_megapixel"] = footprint.seconds / (plan.side**2 / MEGAPIXEL)
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


def main() -> None:
    """Read a task from standard input; write the footprint to standard output."""
    described: dict[str, Any] = json.load(sys.stdin)
    case = described.pop("case")
    network = Network(**case.pop("network"))
    print(json.dumps(asdict(perform(Task(Case(network, **case), **described)))))


if __name__ == "__main__":
    main()
