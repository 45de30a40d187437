# SPDX-License-Identifier: Apache-2.0
"""Tasks, one JSON object a line -> the outcomes of their calls, likewise: the process of a client, without torch.

    python -m benchmarks.serving.caller

`callers` starts it. Moments are read from the system's monotonic clock, which all processes share.
"""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serving.forms import LATENTS, Form
from benchmarks.serving.soaking import soak
from benchmarks.serving.statistics import Window
from latentwire_client import Client, Latents, LatentwireError, Limits, Timeout
from latentwire_client.errors import Cancelled
from latentwire_client.info import Execution
from latentwire_client.streams import Stream

CALL_S = 900.0
JOIN_S = 0.05
MIB = 2**20


@dataclass(frozen=True)
class Call:
    """One answered call.

    Attributes:
        due_s: moment at which it was to begin.
        ended_s: moment of its answer.
        compute_s: its share of the seconds of its batch in the model.
        server_s: seconds in the queue, in the model and in coding.
    """

    due_s: float
    ended_s: float
    compute_s: float
    server_s: float


@dataclass
class Log:
    """Answers and errors of many calls, from any number of threads."""

    calls: list[Call] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    local: threading.local = field(default_factory=threading.local)

    def executed(self, execution: Execution) -> None:
        """Keep the server's times for the call of this thread."""
        self.local.execution = execution

    def run(self, call: Callable[[], object], due_s: float) -> None:
        """Make a call and keep its answer or its LatentwireError, which is not raised."""
        try:
            call()
        except LatentwireError as error:
            with self.lock:
                self.errors[type(error).__name__] += 1
        else:
            self.answered(due_s, self.local.execution)

    def answered(self, due_s: float, execution: Execution) -> None:
        """Keep an answer that arrived now."""
        server_s = execution.queue_s + execution.compute_s + execution.coding_s
        call = Call(due_s, time.monotonic(), execution.compute_s / execution.batch_size, server_s)
        with self.lock:
            self.calls.append(call)

    def to_json(self) -> dict[str, Any]:
        """Return the calls in the order of their answers, and the errors."""
        calls = sorted(self.calls, key=lambda call: call.ended_s)
        return {"calls": [asdict(call) for call in calls], "errors": dict(self.errors)}


def connect(task: Mapping[str, Any], log: Log, in_flight: int = 8) -> Client:
    """Return a client that reports executions to a log."""
    limits = Limits(max_message_bytes=task["message_mib"] * MIB, in_flight=in_flight)
    return Client(task["target"], timeout=Timeout(call_s=CALL_S), limits=limits, on_execution=log.executed)


def closed_loop(task: Mapping[str, Any]) -> dict[str, Any]:
    """Let each thread make one call after the other, for some seconds and until there are enough answers.

    Calls that are still in flight are cancelled: a full queue of large images would take minutes.
    """
    log, stop = Log(), threading.Event()
    client = connect(task, log)
    call = Form.of(task["form"]).call(client, Path(task["folder"]))
    begun = time.monotonic()
    warm_s, end_s = begun + task["warm_s"], begun + task["warm_s"] + task["seconds"]

    def is_over() -> bool:
        if time.monotonic() < end_s:
            return False
        with log.lock:
            window = Window.of([each.ended_s for each in log.calls], warm_s)
            refused = log.errors.total()
        least: int = task["least"]
        return refused > least or (window is not None and window.answers >= least)

    def loop() -> None:
        while not stop.is_set():
            try:
                log.run(call, time.monotonic())
            except ValueError:
                if not stop.is_set():  # otherwise the channel was closed between two calls
                    stop.set()
                    raise
            if is_over():
                stop.set()

    with ThreadPoolExecutor(task["threads"]) as pool:
        loops = [pool.submit(loop) for _ in range(task["threads"])]
        stop.wait()
        cut_s = time.monotonic()
        while wait(loops, JOIN_S).not_done:
            client.close()
    for each in loops:
        each.result()
    answer = log.to_json()
    answer["calls"] = [each for each in answer["calls"] if each["ended_s"] <= cut_s]
    answer["errors"].pop(Cancelled.__name__, None)
    return {**answer, "warm_s": warm_s, "cut_s": cut_s}


def open_loop(task: Mapping[str, Any]) -> dict[str, Any]:
    """Begin calls when they are due, whether or not earlier calls are answered; latency counts from `due_s`."""
    log = Log()
    with connect(task, log) as client, ThreadPoolExecutor(task["threads"]) as pool:
        call = Form.of(task["form"]).call(client, Path(task["folder"]))
        client.is_healthy()  # the connection is there before the first call
        for due_s in task["due"]:
            time.sleep(max(0.0, due_s - time.monotonic()))
            pool.submit(log.run, call, due_s)
    return log.to_json()


def stream(task: Mapping[str, Any]) -> dict[str, Any]:
    """Send a folder of images, or as many latents, through one stream; return the wall time of the whole stream."""
    log, folder = Log(), Path(task["folder"])
    begun = time.monotonic()
    client = Client(
        task["target"],
        limits=Limits(max_message_bytes=task["message_mib"] * MIB, in_flight=task["in_flight"]),
        on_execution=lambda execution: log.answered(begun, execution),
    )
    files = sorted((folder / "stream").glob("*.jpeg"))[: task["count"]]
    with client, closing(_stream(client, task["operation"], folder, files)) as items:
        for item in items:
            if item.error is not None:
                log.errors[type(item.error).__name__] += 1
    return {**log.to_json(), "wall_s": time.monotonic() - begun}


def _stream(client: Client, operation: str, folder: Path, files: Sequence[Path]) -> "Stream[Any]":
    if operation == "encode":
        return client.encode_stream(files)
    return client.decode_stream([Latents.load(folder / LATENTS)] * len(files))


TASKS = {"closed": closed_loop, "open": open_loop, "stream": stream, "soak": soak}


def main() -> None:
    """Answer tasks until standard input ends."""
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(TASKS[task["kind"]](task)), flush=True)


if __name__ == "__main__":
    main()
