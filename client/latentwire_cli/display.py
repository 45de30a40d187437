# SPDX-License-Identifier: Apache-2.0
"""The events of a training run -> a live panel on a terminal, or else a line now and then."""

import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from latentwire_cli.exit_status import one_line

if TYPE_CHECKING:
    from latentwire_train.data.folder import Problem
    from latentwire_train.record.observer import Plan, Result

Figures = Mapping[str, float]

NAMED_PROBLEMS = 10
"""The most files that are named before the run; its skipped.txt names all files."""
LINE_EVERY_S = 30.0
REFRESHES_PER_S = 2
# Figures that are not parts of the total, or have a line of their own.
NOT_PARTS = ("train/total", "train/psnr", "train/kl", "train/discriminator")


class TrainingDisplay:
    """An observer of a training run that shows it on standard error. A context manager.

    Args:
        data: the path or the URL that is scanned before the run starts.
        console: the console to show the run on; default: standard error.
        clock: a clock in seconds that only grow.

    Attributes:
        plan: the plan of the run; None before the run started.
        result: the result of the run; None before the run ended.
    """

    def __init__(
        self, data: str | Path, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.plan: Plan | None = None
        self.result: Result | None = None
        self._data, self._clock = data, clock
        self._console = console or Console(stderr=True)
        # Where several processes were launched together, only the first shows the run.
        self._live: Live | None = None
        if self._console.is_terminal and os.environ.get("RANK", "0") == "0":
            self._live = Live(
                console=self._console, get_renderable=self._render, refresh_per_second=REFRESHES_PER_S, transient=True
            )
        self._skipped = self._step = self._saved_step = self._held_out_step = 0
        self._figures: Figures = {}
        self._held_out: Figures = {}
        self._best: Figures = {}
        self._progress = 0.0
        self._first: tuple[float, float] | None = None
        self._end_s, self._next_line_s = math.inf, -math.inf

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, plan: "Plan") -> None:
        """Name the network, the device, the data and the skipped files."""
        self.plan, self._best = plan, plan.best
        self._step = self._saved_step = plan.first_step
        steps = plan.config.schedule.steps
        self._progress = plan.first_step / steps if steps else 0.0
        for problem in plan.problems[:NAMED_PROBLEMS]:
            self.problem(problem)
        self._skipped = len(plan.problems)
        if self._skipped > NAMED_PROBLEMS:
            more = self._skipped - NAMED_PROBLEMS
            self._say(f"skipped {more:,} more; {plan.folder / 'skipped.txt'} names all", "yellow")
        if plan.left_out:
            self._say(f"left out of {self._data}: {plan.left_out}")
        self._say(f"{_title(plan)}: {plan.budget}, {plan.images:,} images, {plan.held_out:,} more held out")
        if plan.first_step:
            done = 0 < steps <= plan.first_step
            self._say("all steps are done already" if done else f"going on from step {plan.first_step:,}")

    def problem(self, problem: "Problem") -> None:
        """Name a file that is skipped."""
        self._skipped += 1
        self._say(f"skipped {problem}", "yellow")

    def stepped(self, step: int, progress: float, figures: Figures) -> None:
        """Show the progress; without a terminal, every half minute."""
        self._step, self._progress, self._figures = step, progress, figures
        now = self._clock()
        # The first steps include work that is done once (compilation), so the time left is told by later steps.
        if self._first is None:
            self._first = now, progress
        elif progress > self._first[1]:
            began, before = self._first
            self._end_s = now + (now - began) * (1 - progress) / (progress - before)
        if self._live is None and self.plan is not None and now >= self._next_line_s:
            self._next_line_s = now + LINE_EVERY_S
            words = [f"step {self._place(self.plan)}", _speed(figures), f"loss {_loss(figures)}"]
            self._say(", ".join([*words, f"training PSNR {_psnr(figures)} dB", *self._time_left()]))

    def evaluated(self, step: int, figures: Figures, is_best: bool) -> None:
        """Show the figures of the held-out images."""
        self._held_out, self._held_out_step = figures, step
        if is_best:
            self._best = figures
        if self._live is None:
            standing = "the best so far" if is_best else f"the best had {_psnr(self._best)} dB"
            self._say(f"step {step:,}: held-out PSNR {_psnr(figures)} dB, {standing}")

    def saved(self, step: int) -> None:
        """Show the step from which an interrupted run would go on."""
        self._saved_step = step

    def ended(self, result: "Result") -> None:
        """Keep the result for the command's summary."""
        self.result = result

    def _say(self, text: str, style: str = "") -> None:
        """Print a line that stays; on a terminal above the panel."""
        self._console.print(Text(one_line(text), style), soft_wrap=True)

    def _time_left(self) -> list[str]:
        if self._progress >= 1:
            return ["finishing"]
        return [f"{_duration(self._end_s - self._clock())} left"] if math.isfinite(self._end_s) else []

    def _place(self, plan: "Plan") -> str:
        schedule = plan.config.schedule
        if schedule.steps:
            return f"{self._step:,} of {schedule.steps:,}"
        return f"{self._step:,} in {self._progress * schedule.minutes:.1f} of {schedule.minutes:g} minutes"

    def _render(self) -> RenderableType:
        plan = self.plan
        if plan is None:
            return Text(one_line(f"looking through {self._data} ..."), "dim")
        bar = Table.grid("", "", "", expand=True, padding=(0, 1))
        bar.columns[1].ratio = 1
        bar.add_row(f"{self._progress:.1%}", ProgressBar(1.0, min(1.0, self._progress)), *self._time_left())
        lines = Table.grid(padding=(0, 1))
        lines.add_column(style="dim")
        for name, parts in self._lines(plan).items():
            if parts:
                lines.add_row(name, Text(" · ".join(parts)))
        folder = Text(one_line(str(plan.folder)))
        return Panel(Group(bar, lines), title=_title(plan), title_align="left", subtitle=folder, subtitle_align="left")

    def _lines(self, plan: "Plan") -> dict[str, list[str]]:
        """Return the lines below the bar: name -> parts."""
        figures, place = self._figures, self._place(plan)
        if not figures:
            return {"step": [place, "getting ready"]}
        loss = [name for name in figures if name.startswith("train/") and name not in NOT_PARTS]
        quality = [f"{_psnr(figures)} dB in training"]
        if self._held_out:
            quality.append(f"{_psnr(self._held_out)} held out, step {self._held_out_step:,}")
        if self._best:
            quality.append(f"best {_psnr(self._best)}")
        return {
            "step": [place, _speed(figures), f"learning rate {figures.get('learning_rate', math.nan):.2g}"],
            "loss": [_loss(figures), *(f"{name.removeprefix('train/')} {figures[name]:.3g}" for name in loss)],
            "KL": [f"{figures['train/kl']:,.1f} nats per image"] if "train/kl" in figures else [],
            "PSNR": quality,
            "saved": [f"step {self._saved_step:,}"] if self._saved_step else [],
            "skipped": [f"{self._skipped:,} files"] if self._skipped else [],
        }


def _title(plan: "Plan") -> str:
    model = plan.config.model
    return f"{model.family} ({model.kind}), {plan.parameters:,} parameters, on {plan.device}"


def _speed(figures: Figures) -> str:
    return f"{figures.get('images_per_s', math.nan):,.1f} images/s"


def _loss(figures: Figures) -> str:
    return f"{figures.get('train/total', math.nan):.4g}"


def _psnr(figures: Figures) -> str:
    """Return the PSNR, dB, among figures of held-out images or of training."""
    return f"{figures.get('held_out/psnr', figures.get('train/psnr', math.nan)):.2f}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
