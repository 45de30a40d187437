# SPDX-License-Identifier: Apache-2.0
"""What happens in a training run -> whoever shows it: a protocol, and log lines as its plainest form."""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from latentwire_train.config import TrainingConfig
from latentwire_train.data.folder import Problem

_log = logging.getLogger("latentwire.train")


@dataclass(frozen=True)
class Plan:
    """What a run is about to do.

    Attributes:
        folder: of the run.
        config: all of it.
        images: that are trained on.
        held_out: images that are measured on.
        problems: files that were skipped while the data was looked through.
        parameters: of the network, numbers.
        device: in words, such as `cpu` or `2 x cuda`.
        first_step: steps that are done already; 0 for a new run.
        steps: the budget in steps; 0: it is `minutes`.
        minutes: the budget in minutes; 0: it is `steps`.
        best: figures of the best weights so far, where an interrupted run goes on.
    """

    folder: Path
    config: TrainingConfig
    images: int
    held_out: int
    problems: tuple[Problem, ...]
    parameters: int
    device: str
    first_step: int
    steps: int
    minutes: float
    best: Mapping[str, float] = field(default_factory=dict)

    @property
    def budget(self) -> str:
        """In words: `10,000 steps` or `48 minutes`."""
        return f"{self.steps:,} steps" if self.steps else f"{self.minutes:g} minutes"


@dataclass(frozen=True)
class Result:
    """What a run has done.

    Attributes:
        folder: of the run, with `best` and `last` in it.
        steps: done, over all interruptions.
        minutes: of training, over all interruptions.
        best: figures of the best weights on the held-out images.
        stopped: whether it was interrupted before its budget was used; the same call goes on.
    """

    folder: Path
    steps: int
    minutes: float
    best: Mapping[str, float]
    stopped: bool


class Observer(Protocol):
    """Is told what happens, in the order of these methods; with several processes, that of rank 0 only."""

    def started(self, plan: Plan) -> None:
        """The data is open and the first step comes next."""

    def problem(self, problem: Problem) -> None:
        """A damaged image was found on the way and is left out."""

    def stepped(self, step: int, progress: float, figures: Mapping[str, float]) -> None:
        """So many steps are done, and so much of the budget is used, 0..1; called every `run.log_every` steps.

        Figures are those of training: `train/total`, `train/psnr`, `train/kl`, the parts of the loss as `train/l1` ...,
        `images_per_s`, `learning_rate`.
        """

    def evaluated(self, step: int, figures: Mapping[str, float], is_best: bool) -> None:
        """The held-out images were measured: `held_out/psnr`, `held_out/kl`, `held_out/loss` ..."""

    def saved(self, step: int) -> None:
        """A checkpoint of this step is on disk."""

    def ended(self, result: Result) -> None:
        """Nothing follows."""


class LoggingObserver:
    """An observer that writes log lines, of `latentwire.train`.

    Args:
        min_interval_s: between two lines about steps, seconds.
    """

    def __init__(self, min_interval_s: float = 30.0) -> None:
        self._min_interval_s = min_interval_s
        self._last_s = -math.inf

    def started(self, plan: Plan) -> None:
        """Log what is trained, on what and how long, and every file that was skipped."""
        for problem in plan.problems:
            self.problem(problem)
        model = plan.config.model
        _log.info(
            "training %s (%s), %s parameters, on %s: %d images, %d held out, %s",
            model.family, model.kind, f"{plan.parameters:,}", plan.device, plan.images, plan.held_out, plan.budget,
        )  # fmt: skip
        if plan.first_step:
            _log.info("going on from step %d", plan.first_step)

    def problem(self, problem: Problem) -> None:
        """Log its name and the reason as a warning."""
        _log.warning("skipped %s", problem)

    def stepped(self, step: int, progress: float, figures: Mapping[str, float]) -> None:
        """Log the figures, now and then."""
        if time.monotonic() - self._last_s >= self._min_interval_s:
            self._last_s = time.monotonic()
            _log.info("step %d (%.1f%%): %s", step, 100 * progress, _in_words(figures))

    def evaluated(self, step: int, figures: Mapping[str, float], is_best: bool) -> None:
        """Log the figures."""
        _log.info("step %d, held-out images: %s%s", step, _in_words(figures), " (best)" if is_best else "")

    def saved(self, step: int) -> None:
        """Log it, for whoever looks into the details."""
        _log.debug("saved step %d", step)

    def ended(self, result: Result) -> None:
        """Log where it lies and what it reached."""
        verb = "stopped after" if result.stopped else "trained"
        _log.info(
            "%s %d steps in %.1f minutes; best: %s; in %s",
            verb, result.steps, result.minutes, _in_words(result.best), result.folder,
        )  # fmt: skip


def _in_words(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name.rpartition('/')[2]} {value:.4g}" for name, value in figures.items())
