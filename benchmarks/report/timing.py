# SPDX-License-Identifier: Apache-2.0
"""Calls to compare -> the seconds of each, taken in turn, and their ratios; steps that begin -> a progress bar.

The speed of a machine drifts: medians over rounds A B C A B C, and ratios within each round, cancel the drift.
"""

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

WARM_UP_S = 1.0  # each call runs at least once and at least this long before it is timed
SAMPLE_S = 0.25  # a quicker call is repeated for this long; the mean is one sample
LEAST_ROUNDS = 3
Step = Callable[[str], None]  # takes the name of the step that begins now


@dataclass(frozen=True)
class Spread:
    """A number measured several times: its median, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Map at least one number to its spread."""
        return cls(median(values), min(values), max(values))


def speed_up(slower: Sequence[float], faster: Sequence[float]) -> Spread:
    """Map the seconds of two calls, round by round, to how many times as fast the second is."""
    return Spread.of([one / other for one, other in zip(slower, faster, strict=True)])


def warmed_up(call: Callable[[], T]) -> tuple[T, float]:
    """Run a call until it is warm; return the result and the seconds of the last run."""
    begun = time.perf_counter()
    while True:
        started = time.perf_counter()
        result = call()
        ended = time.perf_counter()
        if ended - begun >= WARM_UP_S:
            return result, ended - started


def take_turns(
    calls: Mapping[K, Callable[[], object]],
    seconds: Mapping[K, float],
    rounds: int,
    limit_s: float,
    step: Callable[[int], None] = lambda number: None,
) -> dict[K, list[float]]:
    """Map calls to their seconds, one number for each round.

    Each call is warm, takes about so many seconds, and returns when its device is done. No round begins after the
    limit for all rounds, but there are at least LEAST_ROUNDS. `step` takes the number of each round, from 1.
    """
    repeats = {key: max(1, ceil(SAMPLE_S / seconds[key])) for key in calls}
    samples: dict[K, list[float]] = {key: [] for key in calls}
    begun = time.perf_counter()
    for number in range(1, rounds + 1):
        if number > LEAST_ROUNDS and time.perf_counter() - begun > limit_s:
            break
        step(number)
        for key, call in calls.items():
            started = time.perf_counter()
            for _ in range(repeats[key]):
                call()
            samples[key].append((time.perf_counter() - started) / repeats[key])
    return samples


@contextmanager
def progress(console: Console) -> Iterator[Progress]:
    """Show progress bars on a terminal, and nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        yield bars


@contextmanager
def steps(total: int) -> Iterator[Step]:
    """Show how far a run of `total` steps is; a run may end with fewer."""
    console = Console(stderr=True)
    with progress(console) as bars:
        task = bars.add_task("", total=total)
        begun = 0

        def step(name: str) -> None:
            nonlocal begun
            bars.update(task, description=name, completed=begun)
            begun += 1
            if not console.is_terminal:
                console.print(f"{begun}/{total} {name}", markup=False, highlight=False, soft_wrap=True)

        yield step
