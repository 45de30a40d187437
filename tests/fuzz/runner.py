# SPDX-License-Identifier: Apache-2.0
"""A target and some minutes -> how many damaged inputs had each outcome; inputs with a wrong outcome are kept.

python -m tests.fuzz.TARGET [--minutes 10] [--seed 0] [--folder fuzz-output]
python -m tests.fuzz.TARGET --replay FILE
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

MOST_FAILURES = 20
"""Failures that end a run."""
BATCH = 20
"""Inputs between two updates of the progress bar."""


class Failure(Exception):
    """An outcome that is not allowed, or too much time or memory; the text says what happened."""


@dataclass(frozen=True)
class Attempt:
    """How an allowed attempt ended, and what it took.

    Attributes:
        outcomes: the name of the outcome of each request or file in the input.
        seconds: CPU time.
        mib: memory beyond what was held before.
        used: the share of the allowed CPU time; 0 where there is no bound.
    """

    outcomes: tuple[str, ...]
    seconds: float
    mib: float
    used: float = 0.0


class Target(AbstractContextManager["Target"], Protocol):
    """What is under test, with the generator of its inputs; the same seed gives the same inputs."""

    @property
    def name(self) -> str:
        """The name in reports, and of the folder with kept inputs."""

    def payload(self) -> bytes:
        """Return the next damaged input."""

    def attempt(self, payload: bytes) -> Attempt:
        """Try an input; raise Failure where the outcome is not allowed."""


@dataclass
class Report:
    """Outcomes of all inputs so far, and the inputs that stand out."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, bytes]] = field(default_factory=list)
    """What happened, and the input."""
    extremes: dict[str, tuple[float, Attempt, bytes]] = field(default_factory=dict)
    """`slowest`, `largest` and `nearest` (to its bound) -> the number, the attempt and its input."""

    def add(self, attempt: Attempt, payload: bytes) -> None:
        """Count an attempt, and keep its input where no other took as much."""
        self.outcomes.update(attempt.outcomes)
        for name, value in (("slowest", attempt.seconds), ("largest", attempt.mib), ("nearest", attempt.used)):
            if name not in self.extremes or value > self.extremes[name][0]:
                self.extremes[name] = (value, attempt, payload)


def fuzz(target: Target, tries: int, report: Report) -> None:
    """Try damaged inputs and add their outcomes to the report."""
    for _ in range(tries):
        payload = target.payload()
        try:
            report.add(target.attempt(payload), payload)
        except Failure as failure:
            report.failures.append((str(failure), payload))
            if len(report.failures) >= MOST_FAILURES:
                return


def run(make: Callable[[int], Target], description: str | None, arguments: Sequence[str] | None = None) -> None:
    """Fuzz for some minutes and print the counts, or replay one input; end with status 1 where something failed.

    Args:
        make: maps a seed to the target.
        description: the help of the command.
        arguments: the command line; None: that of the process.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="how long (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage (default 0)")
    parser.add_argument("--folder", type=Path, default=Path("fuzz-output"), help="where inputs are kept")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="try this kept input alone")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    report = Report()
    with make(options.seed) as target:
        if options.replay is not None:
            _replay(target, options.replay, console)
            return
        started = time.monotonic()
        with Progress(console=console) as progress:
            task = progress.add_task(f"fuzzing {target.name}", total=60 * options.minutes)
            while not progress.finished and len(report.failures) < MOST_FAILURES:
                fuzz(target, BATCH, report)
                progress.update(task, completed=time.monotonic() - started)
        folder = options.folder / target.name
    _keep(report, folder)
    _print(report, f"{target.name}, seed {options.seed}", folder, console)
    if report.failures:
        sys.exit(f"{len(report.failures)} inputs failed; they are in {folder} (try one again with --replay FILE)")


def _replay(target: Target, path: Path, console: Console) -> None:
    try:
        attempt = target.attempt(path.read_bytes())
    except Failure as failure:
        sys.exit(f"{path} fails: {failure}")
    outcomes = ", ".join(f"{name} {count}" for name, count in Counter(attempt.outcomes).items())
    console.print(f"{path}: {outcomes}, after {_cost(attempt)}")


def _keep(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, _, payload) in report.extremes.items():
        (folder / name).write_bytes(payload)
    for number, (problem, payload) in enumerate(report.failures):
        (folder / f"failure-{number}").write_bytes(payload)
        (folder / f"failure-{number}.txt").write_text(problem + "\n")


def _print(report: Report, title: str, folder: Path, console: Console) -> None:
    table = Table(title=f"{report.outcomes.total()} damaged inputs for {title}")
    table.add_column("outcome")
    table.add_column("inputs", justify="right")
    for outcome, count in report.outcomes.most_common():
        table.add_row(outcome, str(count))
    console.print(table)
    for name, (_, attempt, _) in report.extremes.items():
        console.print(f"{name}: {_cost(attempt)} ({', '.join(sorted(set(attempt.outcomes)))}), kept as {folder / name}")
    for number, (problem, _) in enumerate(report.failures):
        console.print(f"failure {number}: {problem[:2000]}", markup=False)


def _cost(attempt: Attempt) -> str:
    bound = f" ({attempt.used:.0%} of its bound)" if attempt.used else ""
    return f"{attempt.seconds * 1e3:.0f} ms of CPU time{bound}, {attempt.mib:.1f} MiB"
