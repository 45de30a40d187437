# SPDX-License-Identifier: Apache-2.0
"""Small pictures and small configurations for the tests of training."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from skimage import data

from latentwire_train.config import TrainingConfig
from latentwire_train.data.folder import Problem
from latentwire_train.recipes import config_from
from latentwire_train.record.observer import Plan, Result

TINY: dict[str, dict[str, Any]] = {
    "latent-vae": {"widths": [8, 16, 16], "encoder_depths": [1, 1], "decoder_depths": [1, 1, 1]},
    "autoencoder-kl": {"block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4},
    "vector": {"latent_dim": 4},
}


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve different crops of 48x64 pixels, in two subfolders."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(12):
        source = (data.astronaut(), data.coffee(), data.chelsea())[number % 3]
        top, left = 20 * number, 25 * number
        folder = root / ("a" if number % 2 else "b")
        folder.mkdir(exist_ok=True)
        Image.fromarray(source[top : top + 48, left : left + 64]).save(folder / f"{number:02}.png")
    return root


@pytest.fixture(scope="session")
def tiny() -> Callable[..., TrainingConfig]:
    """What maps a family and tables that differ to a configuration that trains in a second or two."""

    def make(family: str = "latent-vae", **tables: Mapping[str, Any]) -> TrainingConfig:
        base: dict[str, dict[str, Any]] = {
            "model": {"family": family, "options": TINY[family]},
            "data": {"size": 32, "held_out_share": 0.25, "framing": "cover" if family == "vector" else "crop"},
            "loss": {"weights": {"l1": 1.0, "kl": 1e-3}},
            "schedule": {"steps": 4, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 2, "ema_decay": 0.5},
            "run": {"device": "cpu", "log_every": 2, "evaluate_every": 4, "save_every": 2},
        }
        return config_from({name: base[name] | dict(tables.get(name, {})) for name in base})

    return make


@pytest.fixture
def tiny_kl_folder(tiny_kl: Path, tmp_path: Path) -> Path:
    """A folder with a tiny AutoencoderKL, to be changed."""
    return shutil.copytree(tiny_kl, tmp_path / "kl")


class Watcher:
    """An observer that remembers what it is told."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.problems: list[Problem] = []
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.evaluations: list[tuple[int, dict[str, float]]] = []
        self.saved_steps: list[int] = []
        self.results: list[Result] = []

    def started(self, plan: Plan) -> None:
        self.plans.append(plan)

    def problem(self, problem: Problem) -> None:
        self.problems.append(problem)

    def stepped(self, step: int, progress: float, figures: Mapping[str, float]) -> None:
        assert 0 <= progress <= 1
        self.steps.append((step, dict(figures)))

    def evaluated(self, step: int, figures: Mapping[str, float], is_best: bool) -> None:
        self.evaluations.append((step, dict(figures)))

    def saved(self, step: int) -> None:
        self.saved_steps.append(step)

    def ended(self, result: Result) -> None:
        self.results.append(result)


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()
