# SPDX-License-Identifier: Apache-2.0
"""Flags of `latentwire serve` -> a server in a process of its own, its address and its memory."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.report.environment import ROOT, status_bytes

PACKAGES = ("client", "codec", "proto", "server")
STOP_S = 90
IDLE_SHARE, IDLE_STEP_S, IDLE_LIMIT_S = 0.1, 0.1, 120.0


@dataclass(frozen=True)
class Served:
    """A server that is ready."""

    target: str  # HOST:PORT
    pid: int  # id of its process; with workers, the id of their parent
    ready: str = ""  # the line that it printed when it was ready

    def peak_bytes(self) -> int | None:
        """Return the largest resident memory since the start, summed over its processes; None: /proc is absent."""
        try:
            return sum(status_bytes("VmHWM", process.pid) for process in self._processes())
        except OSError:
            return None

    def wait_until_idle(self) -> None:
        """Wait until its processes use next to no CPU time: cancelled work may still be on the device."""
        deadline = time.monotonic() + IDLE_LIMIT_S
        before = self._cpu_s()
        while time.monotonic() < deadline:
            time.sleep(IDLE_STEP_S)
            now = self._cpu_s()
            if now - before < IDLE_SHARE * IDLE_STEP_S:
                return
            before = now

    def _cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes())

    def _processes(self) -> list[psutil.Process]:
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]


@contextmanager
def serving(flags: Sequence[str], checkout: Path = ROOT) -> Iterator[Served]:
    """Start `latentwire serve --port 0` of a checkout with further flags; stop it by SIGTERM when the context ends.

    Raises:
        RuntimeError: it did not start, or ended with an error; the text holds its log.
    """
    command = [latentwire(), "serve", "--port", "0", *flags]
    path = os.pathsep.join(str(checkout.resolve() / name) for name in PACKAGES)
    # The log goes to a file: a full pipe that nobody reads would stop the server.
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            if not ready.startswith("serving "):
                log.seek(0)
                raise RuntimeError(f"the server did not start: {log.read().strip()}")
            yield Served(ready.split(" on ")[1].split(",")[0].strip(), process.pid, ready)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(STOP_S)
            finally:
                process.kill()
        if status:
            log.seek(0)
            raise RuntimeError(f"the server ended with the status {status}: {log.read().strip()}")


def latentwire() -> str:
    """Return the path of the command that belongs to this Python."""
    return str(Path(sys.executable).with_name("latentwire"))
