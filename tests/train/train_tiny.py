# SPDX-License-Identifier: Apache-2.0
"""A training run in a process of its own, to be killed: `python train_tiny.py CONFIG.json PHOTOS RUN`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from latentwire_train.data.folder import Problem
from latentwire_train.loop import train
from latentwire_train.recipes import config_from
from latentwire_train.record.observer import Plan, Result


class Silent:
    """An observer that tells nobody."""

    def started(self, plan: Plan) -> None: ...

    def problem(self, problem: Problem) -> None: ...

    def stepped(self, step: int, progress: float, figures: Mapping[str, float]) -> None: ...

    def evaluated(self, step: int, figures: Mapping[str, float], is_best: bool) -> None: ...

    def saved(self, step: int) -> None: ...

    def ended(self, result: Result) -> None: ...


if __name__ == "__main__":
    torch.set_num_threads(1)
    config, photos, folder = map(Path, sys.argv[1:])
    result = train(config_from(json.loads(config.read_text())), photos, folder, Silent())
    print("stopped" if result.stopped else "done", result.steps, flush=True)
