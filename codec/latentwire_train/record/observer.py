# SPDX-License-Identifier: Apache-2.0
"""The events of a training run -> the observer that shows them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from latentwire_train.config import TrainingConfig
from latentwire_train.data.folder import Problem


@dataclass(frozen=True)
class Plan:
    """What a run is about to do."""

    folder: Path
    config: TrainingConfig
    images: int  # number of images to train on
    held_out: int  # number of images to measure on
    problems: tuple[Problem, ...]  # files that were skipped while the data was scanned
    parameters: int  # number of the network's parameters
    device: str  # the device in words, such as `cpu` or `2 x cuda`
    first_step: int  # number of steps that are done already; 0 for a new run
    # Figures of the best weights so far, where an interrupted run goes on.
    best: Mapping[str, float] = field(default_factory=dict)
    left_out: str = ""  # numbers and reasons of the files in the folder that are no images

    @property
    def budget(self) -> str:
        """The budget in words: `10,000 steps` or `48 minutes`."""
        schedule = self.config.schedule
        return f"{schedule.steps:,} steps" if schedule.steps else f"{schedule.minutes:g} minutes"


@dataclass(frozen=True)
class Result:
    """What a run has done."""

    folder: Path  # the folder of the run, with `best` and `last` in it
    steps: int  # number of steps done, over all interruptions
    minutes: float  # time spent in training, over all interruptions
    best: Mapping[str, float]  # figures of the best weights on the held-out images
    stopped: int  # the signal that interrupted the run before its budget was used; 0: it was used


class Observer(Protocol):
    """Is told the events of a run, in the order of these methods; with several processes, only rank 0 has one."""

    def started(self, plan: Plan) -> None:
        """Take note that the data is open and the first step comes next."""

    def problem(self, problem: Problem) -> None:
        """Take note of a damaged image, which training leaves out."""

    def stepped(self, step: int, progress: float, figures: Mapping[str, float]) -> None:
        """Take note that `step` steps are done and the part `progress`, 0..1, of the budget is used.

        It is called every `run.log_every` steps. The figures are those of training: `train/total`, `train/psnr`,
        `train/kl`, the parts of the loss as `train/l1` ..., `images_per_s`, `learning_rate`.
        """

    def evaluated(self, step: int, figures: Mapping[str, float], is_best: bool) -> None:
        """Take the figures of the held-out images: `held_out/psnr`, `held_out/kl`, `held_out/loss` ..."""

    def saved(self, step: int) -> None:
        """Take note that a checkpoint of this step is on disk."""

    def ended(self, result: Result) -> None:
        """Take the result of the run; no event follows."""
