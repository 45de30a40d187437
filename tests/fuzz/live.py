# SPDX-License-Identifier: Apache-2.0
"""A server in a process of its own -> its addresses, what it holds, and whether its log tells of a fault."""

import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
import psutil

from tests.fuzz.runner import Failure

LIMITS = ("--max-message-mib", "1", "--max-side", "256", "--max-queue", "64", "--max-refinement", "2")
"""Small, so that a minute has many requests."""
MOST_MIB = 1024
"""Memory that the server may take beyond what it had when it was ready."""
GONE = re.compile(r"Traceback [^\n]*\n(?:  [^\n]*\n)*grpc\._cython\.cygrpc\.ExecuteBatchError[^\n]*\n")
"""What gRPC itself writes where a client goes before it has its status."""
FAULTS = ("Traceback (most recent call last)", " ERROR ", " CRITICAL ")


@dataclass(frozen=True)
class Held:
    """What the server's process and those that it started hold.

    Attributes:
        cpu_s: CPU time so far.
        mib: resident memory.
        threads: their number.
        descriptors: the number of open files and sockets.
    """

    cpu_s: float
    mib: float
    threads: int
    descriptors: int


class LiveServer:
    """`latentwire serve` with gRPC and HTTP, on ports of its own; it ends with `close`.

    Args:
        flags: further flags of `serve`.
    """

    def __init__(self, *flags: str) -> None:
        self._log = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115 - it lasts as long as the server
        self._read = 0
        command = [str(Path(sys.executable).with_name("latentwire")), "serve", "--port", "0", "--http-port", "0"]
        self.process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=self._log, text=True)
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        assert ready.startswith("serving "), self.log
        self.target, http, *_ = (part.split()[-1] for part in ready.split(", "))
        self.http = (http.rpartition(":")[0], int(http.rpartition(":")[2]))
        self._ps = psutil.Process(self.process.pid)
        self.ready = self.held()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def channel(self) -> Any:
        """Return a connection of its own, over which bytes are sent."""
        return grpc.insecure_channel(
            self.target, [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        )

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        return Path(self._log.name).read_text(errors="replace")

    def held(self) -> Held:
        """Return what the processes hold now.

        Raises:
            Failure: the process has ended.
        """
        if self.process.poll() is not None:
            raise Failure(f"the server ended with status {self.process.returncode}: {self.log[-2000:]}")
        held = []
        for process in (self._ps, *self._ps.children(recursive=True)):
            with suppress(psutil.NoSuchProcess), process.oneshot():
                times, mib = process.cpu_times(), process.memory_info().rss / 2**20
                held.append((times.user + times.system, mib, process.num_threads(), process.num_fds()))
        cpu_s, mib, threads, descriptors = map(sum, zip(*held, strict=True))
        return Held(cpu_s, mib, int(threads), int(descriptors))

    def check(self) -> Held:
        """Return what the process holds.

        Raises:
            Failure: the process has ended, its log tells of a fault since the last check, or it takes too much memory.
        """
        held = self.held()
        with Path(self._log.name).open(errors="replace") as log:
            log.seek(self._read)
            new = log.read()
            self._read = log.tell()
        new = GONE.sub("", new)
        faults = [new.index(fault) for fault in FAULTS if fault in new]
        if faults:
            raise Failure(f"the server's log: {new[max(0, min(faults) - 200) :][:3000]}")
        if held.mib - self.ready.mib > MOST_MIB:
            raise Failure(f"the server holds {held.mib:.0f} MiB; {self.ready.mib:.0f} MiB when it was ready")
        return held

    def close(self) -> None:
        """End the process, after its drain where it still answers."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
