# SPDX-License-Identifier: Apache-2.0
"""A configuration -> several processes on one port, started, watched and restarted by this one.

The system spreads connections over the workers that listen. Each worker holds the read end of a pipe. When the pipe
ends, because this process closes it or is gone, the worker finishes the requests that it has accepted, and ends.

    parent ── reserves the ports ──┬── worker 0 ── Server
      │                            └── worker 1 ── Server
      └── assignment, then the end ──> standard input;  standard output ──> Ports, or an exception
"""

import asyncio
import logging
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from latentwire_core.errors import CodecError
from latentwire_server.config import ServerConfig
from latentwire_server.errors import ServerError
from latentwire_server.process.lifecycle import ask_by_signal
from latentwire_server.process.ports import Ports, reserve

log = logging.getLogger("latentwire")

MAIN = "from latentwire_server.worker import main; raise SystemExit(main())"
# The pause before a worker that ended is started again. It doubles each time, unless the worker ran for as long as the
# longest pause.
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class Assignment:
    """What a worker has to know to serve.

    Attributes:
        number: the worker's own number, from 0.
        workers: the number of workers; each takes its share of the CPU's cores.
        config: the configuration of the worker's one server, with ports that it shares.
        log_format: see `telemetry.configure_logging`.
    """

    number: int
    workers: int
    config: ServerConfig
    log_format: str


class Worker:
    """One worker process, and its successors."""

    def __init__(self, assignment: Assignment) -> None:
        self.number = assignment.number
        self._assignment = assignment
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> Ports:
        """Start a process; when it is ready, return where it listens.

        Raises:
            ServerError, CodecError, OSError: the reason why the worker could not start.
        """
        # -P: no module of the working directory comes before an installed one. The process has a group of its own: a
        # terminal sends Ctrl-C to a whole group, and only the parent is to get it.
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", MAIN,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, process_group=0,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(ConnectionError):  # the process is gone already; its status tells why
            process.stdin.write(pickle.dumps(self._assignment))
            await process.stdin.drain()
        if self._stopping.is_set():
            process.stdin.close()
        answer = await process.stdout.read()
        if not answer:
            raise ServerError(f"worker {self.number} {_ended(await process.wait())} before it was ready; see the log")
        outcome = pickle.loads(answer)
        if isinstance(outcome, Exception):
            await process.wait()
            raise outcome
        assert isinstance(outcome, Ports)
        if outcome.metrics:  # a successor takes the same port
            config = replace(self._assignment.config, metrics_port=outcome.metrics[0])
            self._assignment = replace(self._assignment, config=config)
        return outcome

    def stop(self) -> None:
        """Ask the process, now or when it has started, to finish the requests that it has accepted, and to end."""
        self._stopping.set()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self) -> None:
        """End the process at once."""
        with suppress(ProcessLookupError):
            if self._process is not None:
                self._process.kill()

    async def ended(self) -> int:
        """Wait for the end of the process; return its status: 0 for a clean end, or where there is no process."""
        return 0 if self._process is None else await self._process.wait()

    async def keep(self) -> int:
        """Start the process again whenever it ends, until `stop`; return the status of the last process."""
        pause_s = FIRST_PAUSE_S
        while True:
            since = time.monotonic()
            status = await self.ended()
            if self._stopping.is_set():
                return status
            if time.monotonic() - since > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            log.error("worker %d %s; it is started again in %g s", self.number, _ended(status), pause_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
                return 0
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            try:
                await self.start()
            except (ServerError, CodecError, OSError) as error:
                if not self._stopping.is_set():
                    log.error("worker %d cannot start: %s", self.number, error)
            else:
                log.info("worker %d is ready again", self.number)


def run_workers(config: ServerConfig, log_format: str, on_ready: Callable[[Ports], None]) -> int:
    """Serve with a worker for each of `config.worker_devices` until SIGTERM or SIGINT; a second signal kills them.

    Args:
        config: the configuration of the server as a whole.
        log_format: see `telemetry.configure_logging`.
        on_ready: called with the ports when all workers are ready.

    Returns:
        The exit status: 0, or 1 where a worker left requests without an answer.

    Raises:
        ServerError, CodecError, OSError: a worker cannot start for the first time.
    """
    return asyncio.run(_run(config, log_format, on_ready))


async def _run(config: ServerConfig, log_format: str, on_ready: Callable[[Ports], None]) -> int:
    asked = asyncio.Event()
    workers: list[Worker] = []

    def end_at_once(status: int) -> None:
        for worker in workers:
            worker.kill()
        os._exit(status)

    ask_by_signal(asked, end_at_once)
    with ExitStack() as reserved:
        port = _reserve(reserved, config.host, config.port, "--port")
        http_port = config.http_port
        if http_port is not None:
            http_port = _reserve(reserved, config.host, http_port, "--http-port")
        shared = replace(config, port=port, http_port=http_port)
        workers += [Worker(assignment) for assignment in _assignments(shared, log_format)]
        log.info("starting %d workers, on %s", len(workers), ", ".join(config.worker_devices))
        return await _serve(workers, asked, on_ready)


def _reserve(stack: ExitStack, host: str, port: int, flag: str) -> int:
    sock = stack.enter_context(reserve(host, port, flag))
    return int(sock.getsockname()[1])


async def _serve(workers: Sequence[Worker], asked: asyncio.Event, on_ready: Callable[[Ports], None]) -> int:
    stopping = asyncio.create_task(asked.wait())
    starts = [asyncio.create_task(worker.start()) for worker in workers]
    ready = asyncio.gather(*starts)
    keeping: list[asyncio.Task[int]] = []
    try:
        await asyncio.wait((ready, stopping), return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ports = ready.result()
            on_ready(replace(ports[0], metrics=tuple(port for each in ports for port in each.metrics)))
            keeping = [asyncio.create_task(worker.keep()) for worker in workers]
            await stopping
        log.info("draining")
    except BaseException:
        for worker in workers:
            worker.kill()
        raise
    finally:
        for worker in workers:
            worker.stop()
        await asyncio.gather(ready, *starts, return_exceptions=True)
        statuses = await asyncio.gather(*(keeping or map(Worker.ended, workers)))
        log.info("stopped")
    return int(any(statuses))


def _assignments(config: ServerConfig, log_format: str) -> Iterator[Assignment]:
    devices = config.worker_devices
    for number, device in enumerate(devices):
        metrics_port = config.metrics_port + number if config.metrics_port else config.metrics_port
        own = replace(config, device=device, workers=1, metrics_port=metrics_port)
        yield Assignment(number, len(devices), own, log_format)


def _ended(status: int) -> str:
    return f"ended with status {status}" if status >= 0 else f"was ended by signal {-status}"
