# SPDX-License-Identifier: Apache-2.0
"""Tasks -> their outcomes: the client processes, seen from the process that measures."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.report.environment import ROOT

LEAD_S = 0.5  # seconds between handing out arrivals and the first moment of their clock


class Caller:
    """One client process; it does one task at a time."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def begin(self, task: Mapping[str, Any]) -> None:
        """Send a task to the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Wait for the outcome of the task; raise RuntimeError where the process ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a client process ended with the status {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def run(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Send a task to the process and wait for its outcome."""
        self.begin(task)
        return self.result()


@contextmanager
def callers(count: int) -> Iterator[list[Caller]]:
    """Start client processes; end them when the context ends."""
    command = [sys.executable, "-m", "benchmarks.serving.caller"]
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            )
            stack.callback(process.terminate)
            made.append(Caller(process))
        yield made


def in_closed_loop(members: Sequence[Caller], task: Mapping[str, Any], concurrency: int) -> dict[str, Any]:
    """Run one closed loop of `concurrency` threads on several processes together.

    Returns:
        the answers, in their order, until the first process ended; the errors; the moment when all were warm.
    """
    used = members[:concurrency]
    shares = [concurrency // len(used) + (place < concurrency % len(used)) for place in range(len(used))]
    least = -(-task["least"] // len(used))
    found = _together(used, [{**task, "kind": "closed", "threads": threads, "least": least} for threads in shares])
    cut_s = min(each["cut_s"] for each in found["each"])
    calls = [call for call in found["calls"] if call["ended_s"] <= cut_s]
    return {**found, "calls": calls, "warm_s": max(each["warm_s"] for each in found["each"])}


def in_open_loop(members: Sequence[Caller], task: Mapping[str, Any], moments: Sequence[float]) -> dict[str, Any]:
    """Begin calls at moments, in seconds from the start, on several processes; return the calls and the errors."""
    begun = time.monotonic() + LEAD_S
    due = [[begun + moment for moment in moments[place :: len(members)]] for place in range(len(members))]
    return _together(members, [{**task, "kind": "open", "due": each} for each in due])


def _together(members: Sequence[Caller], tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    for caller, task in zip(members, tasks, strict=True):
        caller.begin(task)
    results = [caller.result() for caller in members]
    calls = sorted((call for each in results for call in each["calls"]), key=lambda call: float(call["ended_s"]))
    errors: Counter[str] = sum((Counter(each["errors"]) for each in results), Counter())
    return {"calls": calls, "errors": dict(errors), "each": results}
