# SPDX-License-Identifier: Apache-2.0
"""A target and some minutes -> how many damaged inputs had each outcome; the input of the first failure is kept."""

import argparse
import faulthandler
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

MOST_SECONDS = 20.0
MOST_MIB = 64
BATCH = 50
"""Inputs between two updates of the progress bar."""
HANG_SECONDS = 300
"""Seconds for a batch."""


class Failure(Exception):
    """An input with an outcome that is not allowed, or that took too much time or memory.

    Args:
        problem: what happened.
        payload: the input.
    """

    def __init__(self, problem: str, payload: bytes) -> None:
        super().__init__(problem)
        self.payload = payload


class Target(Protocol):
    """A decoder under test, with the generator of its inputs; the same seed gives the same inputs."""

    @property
    def name(self) -> str:
        """The name in reports, and the suffix of a kept input."""

    def payload(self) -> bytes:
        """Return the next damaged input."""

    def attempt(self, payload: bytes) -> str:
        """Decode an input and return the name of the outcome; raise Failure where the outcome is not allowed."""


@dataclass
class Report:
    """Outcomes of all inputs so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")
    """Seconds, and the outcome."""
    largest: tuple[float, str] = (0.0, "")
    """MiB, and the outcome."""


def fuzz(target: Target, tries: int, report: Report, most_seconds: float = MOST_SECONDS) -> None:
    """Try damaged inputs and add their outcomes to the report.

    Raises:
        Failure: at the first input with an outcome that is not allowed, or beyond the bounds of time or memory.
    """
    tracemalloc.start()
    try:
        for _ in range(tries):
            payload = target.payload()
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            started = time.perf_counter()
            outcome = target.attempt(payload)
            seconds = time.perf_counter() - started
            mib = (tracemalloc.get_traced_memory()[1] - before) / 2**20
            if seconds > most_seconds or mib > MOST_MIB:
                raise Failure(f"{outcome} after {seconds:.1f} s with {mib:.0f} MiB", payload)
            report.outcomes[outcome] += 1
            report.slowest = max(report.slowest, (seconds, outcome))
            report.largest = max(report.largest, (mib, outcome))
    finally:
        tracemalloc.stop()


def run(make: Callable[[int], Target], description: str, arguments: Sequence[str] | None = None) -> None:
    """Fuzz for some minutes and print the counts; keep the input of a failure and end with status 1.

    Args:
        make: maps a seed to the target.
        description: the help of the command.
        arguments: the command line; None: that of the process.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="how long (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage (default 0)")
    options = parser.parse_args(arguments)
    console = Console()
    target, report = make(options.seed), Report()
    started = time.monotonic()
    try:
        with Progress(console=console) as progress:
            task = progress.add_task("fuzzing", total=60 * options.minutes)
            while not progress.finished:
                # Ends a decoder that hangs, with its traceback.
                faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=sys.__stderr__ or 2)
                fuzz(target, BATCH, report)
                progress.update(task, completed=time.monotonic() - started)
    except Failure as failure:
        path = Path(f"fuzz-failure.{target.name}")
        path.write_bytes(failure.payload)
        console.print_exception()
        sys.exit(f"after {report.outcomes.total()} inputs: {failure}; the input is in {path}")
    finally:
        faulthandler.cancel_dump_traceback_later()
    total = report.outcomes.total()
    table = Table(title=f"{total} damaged inputs for {target.name}, seed {options.seed}: all refused or decoded")
    table.add_column("outcome")
    table.add_column("inputs", justify="right")
    for outcome, count in report.outcomes.most_common():
        table.add_row(outcome, str(count))
    console.print(table)
    console.print(f"slowest: {report.slowest[0] * 1e3:.0f} ms ({report.slowest[1]})", highlight=False)
    console.print(f"largest: {report.largest[0]:.1f} MiB ({report.largest[1]})", highlight=False)
