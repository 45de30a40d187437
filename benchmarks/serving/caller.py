# SPDX-License-Identifier: Apache-2.0
"""Tasks -> the outcomes of their calls, both one JSON object a line: the process of a client, without torch.

    python -m benchmarks.serving.caller

`callers` starts it. Moments are read from the system's monotonic clock, which all processes share.
A soak makes encode and decode requests, of files and raw tensors of several sizes, in a seeded order. Some of them must
be refused: memory that a failed request keeps is easy to miss.
"""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil

from benchmarks.serving.forms import FORMS, LATENTS, Form
from benchmarks.serving.statistics import Window
from latentwire_client import Client, Latents, LatentwireError, Limits, Timeout
from latentwire_client.errors import Cancelled
from latentwire_client.info import Execution
from latentwire_client.streams import Stream

SETTLING = 100  # requests before the first sample
ERROR_SHARE = 0.1
CALL_S = 900.0
JOIN_S = 0.05
MIB = 2**20


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and of its children."""
    process, total = psutil.Process(pid), 0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            total += each.memory_info().rss
    return total


def soak(task: Mapping[str, Any]) -> dict[str, Any]:
    """Make mixed requests from several threads; sample the server's memory after each, behind the first SETTLING.

    Returns:
        `resident_bytes`, a list; `answers`, `refusals` and `surprises`, counts of each outcome by its name. A surprise
        is a valid request that was refused, or an invalid one that was answered.
    """
    random = Random(task["seed"])
    outcomes: dict[str, Counter[str]] = {"answers": Counter(), "refusals": Counter(), "surprises": Counter()}
    samples: list[int] = []

    def make(index: int, is_wrong: bool, call: Callable[[], object]) -> None:
        try:
            call()
        except LatentwireError as error:
            outcomes["refusals" if is_wrong else "surprises"][type(error).__name__] += 1
        else:
            outcomes["surprises" if is_wrong else "answers"]["answer"] += 1
        if index >= SETTLING:
            samples.append(resident_bytes(task["pid"]))

    with Client(task["target"]) as client:
        right = [Form.of(name).call(client, Path(folder)) for folder in task["folders"] for name in sorted(FORMS)]
        wrong = wrong_calls(client, Path(task["folders"][0]))
        with ThreadPoolExecutor(task["threads"]) as pool:
            made = []
            for index in range(task["count"]):
                is_wrong = random.random() < ERROR_SHARE
                made.append(pool.submit(make, index, is_wrong, random.choice(wrong if is_wrong else right)))
            for each in made:
                each.result()
    return {"resident_bytes": samples, **{name: dict(counted) for name, counted in outcomes.items()}}


def wrong_calls(client: Client, folder: Path) -> list[Callable[[], object]]:
    """Return calls to refuse: a damaged file, an odd size, latents of another space, an unknown model."""
    elsewhere = replace(Latents.load(folder / LATENTS), latent_space="elsewhere", weights_digest="")
    odd = np.zeros((9, 11, 3), np.uint8)
    return [
        lambda: client.encode(b"no image"),
        lambda: client.encode(odd),
        lambda: client.decode_array(elsewhere),
        lambda: client.encode(odd, model="nowhere"),
    ]


@dataclass
class Log:
    """Answers and errors of many calls, from any number of threads.

    An answered call has the moments `due_s`, at which it was to begin, and `ended_s`; `compute_s`, its share of the
    seconds of its batch in the model; and `server_s`, seconds in the queue, in the model and in coding.
    """

    calls: list[dict[str, float]] = field(default_factory=list)
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
        compute_s = execution.compute_s / execution.batch_size
        with self.lock:
            self.calls.append(
                {"due_s": due_s, "ended_s": time.monotonic(), "compute_s": compute_s, "server_s": server_s}
            )

    def to_json(self) -> dict[str, Any]:
        """Return the calls in the order of their answers, and the errors."""
        return {"calls": sorted(self.calls, key=lambda call: call["ended_s"]), "errors": dict(self.errors)}


def connect(task: Mapping[str, Any], on_execution: Callable[[Execution], None], in_flight: int = 8) -> Client:
    """Return a client that reports executions."""
    limits = Limits(max_message_bytes=task["message_mib"] * MIB, in_flight=in_flight)
    return Client(task["target"], timeout=Timeout(call_s=CALL_S), limits=limits, on_execution=on_execution)


def closed_loop(task: Mapping[str, Any]) -> dict[str, Any]:
    """Let each thread make one call after the other, for some seconds and until there are enough answers.

    Calls that are still in flight are cancelled: a full queue of large images would take minutes.
    """
    log, stop = Log(), threading.Event()
    client = connect(task, log.executed)
    call = Form.of(task["form"]).call(client, Path(task["folder"]))
    warm_s = time.monotonic() + task["warm_s"]

    def is_over() -> bool:
        if time.monotonic() < warm_s + task["seconds"]:
            return False
        with log.lock:
            window = Window.of([each["ended_s"] for each in log.calls], warm_s)
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
    with connect(task, log.executed) as client, ThreadPoolExecutor(task["threads"]) as pool:
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
    files = sorted((folder / "stream").glob("*.jpeg"))[: task["count"]]

    def items(client: Client) -> "Stream[Any]":
        if task["operation"] == "encode":
            return client.encode_stream(files)
        return client.decode_stream([Latents.load(folder / LATENTS)] * len(files))

    client = connect(task, lambda execution: log.answered(begun, execution), task["in_flight"])
    with client, closing(items(client)) as results:
        log.errors.update(type(item.error).__name__ for item in results if item.error is not None)
    return {**log.to_json(), "wall_s": time.monotonic() - begun}


TASKS = {"closed": closed_loop, "open": open_loop, "stream": stream, "soak": soak}


def main() -> None:
    """Answer tasks until standard input ends."""
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(TASKS[task["kind"]](task)), flush=True)


if __name__ == "__main__":
    main()
