# SPDX-License-Identifier: Apache-2.0
"""A function and an input -> its outcome, CPU time and memory, from a process of its own that may crash."""

import ctypes
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.runner import Attempt, Failure

MOST_CPU_S = 20
"""CPU time at which the system ends the process, so that an endless loop is a failure."""
MOST_BYTES = 8 << 30
"""Address space of the process, so that no input takes the machine's memory."""
SILENCE_S = 300
"""Time without an answer after which the process hangs."""


@dataclass(frozen=True)
class Measured:
    """What a call took.

    Attributes:
        outcome: the name that the function returned.
        size: the size that the function returned with it.
        seconds: CPU time of all threads.
        mib: the peak of memory beyond what was held before.
    """

    outcome: str
    size: float
    seconds: float
    mib: float


class Apart:
    """A process that calls one function, and is replaced when it ends.

    Args:
        function: maps an input to the name of the outcome and a size; importable by its name.
        warm_up: the first input of each process, which is not measured.
    """

    def __init__(self, function: Callable[[bytes], tuple[str, float]], warm_up: bytes) -> None:
        self._function = function
        self._warm_up = warm_up
        self._log = tempfile.NamedTemporaryFile()  # noqa: SIM115 - it lasts as long as this object
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def close(self) -> None:
        """End the process."""
        self._end()
        self._log.close()

    def attempt(self, payload: bytes, bounds: Callable[[float], tuple[float, float]]) -> Attempt:
        """Call the function with an input; `bounds` maps the size to the CPU seconds and the MiB that it may take.

        Raises:
            Failure: the function raised, its process ended or hung, or the call took more than its bounds.
        """
        taken = self.call(payload)
        seconds, mib = bounds(taken.size)
        if taken.seconds > seconds or taken.mib > mib:
            raise Failure(
                f"{taken.outcome} after {taken.seconds:.2f} s of CPU time with {taken.mib:.0f} MiB, for a size of "
                f"{taken.size:g}; allowed are {seconds:.2f} s and {mib:.0f} MiB"
            )
        return Attempt((taken.outcome,), taken.seconds, taken.mib, taken.seconds / seconds)

    def call(self, payload: bytes) -> Measured:
        """Call the function with an input.

        Raises:
            Failure: the function raised, or its process ended or hung.
        """
        if self._pipe is None:
            self._start()
            self._ask(self._warm_up)
        return self._ask(payload)

    def _start(self) -> None:
        # No fork: this process has threads.
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, self._function, self._log.name), daemon=True)
        self._process.start()
        other.close()

    def _ask(self, payload: bytes) -> Measured:
        assert self._pipe is not None
        assert self._process is not None
        try:
            self._pipe.send_bytes(payload)
            if not self._pipe.poll(SILENCE_S):
                self._end()
                raise Failure(f"no answer in {SILENCE_S} s; {self._last_lines()}")
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            code = self._process.exitcode or 0
            end = signal.Signals(-code).name if code < 0 else f"status {code}"
            self._end()
            raise Failure(f"the process ended with {end}; {self._last_lines()}") from error
        if isinstance(answer, str):
            raise Failure(answer)
        assert isinstance(answer, Measured)
        return answer

    def _end(self) -> None:
        if self._process is not None and self._pipe is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None

    def _last_lines(self) -> str:
        return "its last lines: " + Path(self._log.name).read_text(errors="replace")[-2000:]


def _serve(pipe: Connection, function: Callable[[bytes], tuple[str, float]], log: str) -> None:
    """Answer each input with what its call took, or with the traceback of its exception."""
    descriptor = os.open(log, os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    while True:
        try:
            payload = pipe.recv_bytes()
        except EOFError:
            return
        os.truncate(log, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + MOST_CPU_S, resource.RLIM_INFINITY))
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, started = _peak_mib(), time.process_time()
        try:
            outcome, size = function(payload)
        except BaseException:
            pipe.send(traceback.format_exc())
        else:
            pipe.send(Measured(outcome, size, time.process_time() - started, _peak_mib() - before))


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) / 1024
