# SPDX-License-Identifier: Apache-2.0
"""A case in a process of its own -> its peak memory above that of the idle process, its seconds and its output.

    python -m benchmarks.throughput.apart < task.json

`run_apart` starts the process: a peak only means something in a process that has run nothing else.
"""

import ctypes
import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report.environment import ROOT
from benchmarks.report.photographs import photograph
from benchmarks.throughput.cases import Case
from latentwire_codec.images import pixels
from latentwire_codec.runtime.placement import Placement

STATUS, CLEAR_REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
WARM_UP_SIDE = 64


@dataclass(frozen=True)
class Task:
    """The task of the process.

    Attributes:
        case: the network and the engine.
        operation: `encode` or `decode`; `decode` gets random latents, the same for each case.
        height: height of the image, in pixels.
        width: width of the image, in pixels.
        device: the device.
        threads: threads of torch.
        output: path of the .npy file for the result; empty: the result is not kept.
    """

    case: Case
    operation: str
    height: int
    width: int
    device: str
    threads: int
    output: str = ""


@dataclass(frozen=True)
class Footprint:
    """Memory and time of the process: resident memory, on a GPU the memory of the GPU.

    Attributes:
        idle_bytes: with the network loaded and warm, before the call.
        above_idle_bytes: the peak during the call, less `idle_bytes`.
        seconds: duration of the call.
        dtype: dtype of the arithmetic.
    """

    idle_bytes: int
    above_idle_bytes: int
    seconds: float
    dtype: str


def can_measure() -> bool:
    """Return whether this system can reset the peak of a process's memory."""
    return STATUS.exists() and CLEAR_REFERENCES.exists()


def run_apart(task: Task) -> Footprint:
    """Run a task in a process of its own.

    Raises:
        RuntimeError: the process failed.
    """
    described = json.dumps({**asdict(task), "case": task.case.to_json()})
    command = [sys.executable, "-m", __spec__.name]
    done = subprocess.run(command, input=described, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing; it may have been killed for its memory"])[-1]
        raise RuntimeError(f"{task.case.label} at {task.width}x{task.height} ended with {done.returncode}: {last}")
    return Footprint(**json.loads(done.stdout.splitlines()[-1]))


def perform(task: Task) -> Footprint:
    """Do a task in this process."""
    torch.set_num_threads(task.threads)
    device = Placement.choose(task.device).device
    runner = task.case.load(task.device)
    small = runner.encode(_image(WARM_UP_SIDE, WARM_UP_SIDE))
    runner.decode(small)
    if task.operation == "encode":
        batch = _image(task.height, task.width)
    else:
        factor = WARM_UP_SIDE // small.shape[2]
        shape = (1, small.shape[1], task.height // factor, task.width // factor)
        batch = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    idle = _rest(device)
    started = time.perf_counter()
    result = runner.run(task.operation, batch)
    seconds = time.perf_counter() - started
    peak = _peak(device)
    if task.output:
        np.save(task.output, result.numpy())
    return Footprint(idle, peak - idle, seconds, runner.dtype)


def _image(height: int, width: int) -> torch.Tensor:
    return pixels.to_float(torch.from_numpy(photograph(height, width)).unsqueeze(0))


def _rest(device: torch.device) -> int:
    """Return free memory to the system, reset the peak, and return the bytes in use."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError, AttributeError):  # glibc keeps memory that loading freed; it would hide as much of the peak
        ctypes.CDLL(None).malloc_trim(0)
    CLEAR_REFERENCES.write_text("5")
    return _kilobytes("VmRSS")


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _kilobytes("VmHWM")


def _kilobytes(name: str) -> int:
    """Return a number of /proc/self/status, in bytes."""
    lines = (line.split() for line in STATUS.read_text(encoding="ascii").splitlines())
    return next(int(words[1]) * 1024 for words in lines if words[0] == f"{name}:")


def main() -> None:
    """Read a task from standard input; write the footprint to standard output."""
    described: dict[str, Any] = json.load(sys.stdin)
    task = Task(**{**described, "case": Case.from_json(described["case"])})
    print(json.dumps(asdict(perform(task))))


if __name__ == "__main__":
    main()
