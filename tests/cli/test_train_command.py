# SPDX-License-Identifier: Apache-2.0
"""`latentwire train`: what it asks for, a whole tiny run, and how it ends."""

import signal
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from latentwire_cli import local, main
from latentwire_cli.commands.train import DEFAULT_RECIPE
from latentwire_core.errors import DataError
from latentwire_core.extras import install_hint
from latentwire_train.config import TrainingConfig
from latentwire_train.recipes import load_config, recipe_names
from latentwire_train.record.observer import Observer
from tests.conftest import Pixels
from tests.waiting import until

TINY = (
    "--size", "32", "--batch", "2", "--device", "cpu", "--set", "data.held_out_share=0.3", "--set", "run.log_every=1",
    "--set", "model.options={widths=[8,16,16],encoder_depths=[1,1],decoder_depths=[1,1,1]}",
)  # fmt: skip
COMMAND = str(Path(sysconfig.get_path("scripts")) / "latentwire")


@pytest.fixture
def photos(tmp_path: Path, astronaut: Pixels) -> Path:
    """A folder of eight small pictures."""
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(8):
        Image.fromarray(astronaut[20 * number :, 30 * number :][:40, :40]).save(root / f"{number}.png")
    return root


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainingConfig]:
    """What maps options to the configuration that the loop gets."""

    def ask(*options: str) -> TrainingConfig:
        calls: list[TrainingConfig] = []

        def refuse(config: TrainingConfig, data: str, folder: Path, observer: Observer) -> None:
            calls.append(config)
            assert (data, folder) == ("photos", Path("run"))
            raise DataError("there is no image")

        monkeypatch.setattr("latentwire_train.loop.train", refuse)
        assert main(["train", "photos", "-o", "run", *options]) == 2
        (config,) = calls
        return config

    return ask


# ---------------------------------------------------------------------------------------------------------------------
# What it asks for
# ---------------------------------------------------------------------------------------------------------------------


def test_options_are_keys_of_the_recipe(asked: Callable[..., TrainingConfig]) -> None:
    assert asked() == load_config(DEFAULT_RECIPE)
    flags = "--kind ae --steps 50 --size 64 --batch 4 --learning-rate 2e-3 --seed 9 --device cpu --init runs/a1/best"
    config = asked("--recipe", "autoencoder-kl", *flags.split())
    assert (config.model.family, config.model.kind, config.model.init) == ("autoencoder-kl", "ae", "runs/a1/best")
    assert (config.schedule.steps, config.schedule.minutes, config.schedule.batch_size) == (50, 0, 4)
    assert (config.schedule.learning_rate, config.schedule.seed) == (2e-3, 9)
    assert (config.data.size, config.run.device) == (64, "cpu")
    timed = asked("--minutes", "1.5")
    assert (timed.schedule.steps, timed.schedule.minutes) == (0, 1.5)


def test_set_reaches_every_key_and_has_the_last_word(asked: Callable[..., TrainingConfig]) -> None:
    settings = ["--set", "schedule.seed=5", "--set", "data.framing=cover", "--set", "run.compile=true"]
    config = asked("--seed", "4", *settings)
    assert (config.schedule.seed, config.data.framing, config.run.compile) == (5, "cover", True)


def test_a_recipe_may_be_a_file(asked: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[model]\nfamily = "vector"\n[schedule]\nsteps = 7\n')
    config = asked("--recipe", str(recipe))
    assert (config.model.family, config.schedule.steps) == ("vector", 7)


@pytest.mark.parametrize("init", ["1.5", "true", 'a "quoted" folder', "2024-01-01", "back\\slash"])
def test_what_to_start_from_is_text_whatever_it_looks_like(init: str, asked: Callable[..., TrainingConfig]) -> None:
    assert asked("--init", init).model.init == init


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "5", "--minutes", "1"], "not in both"),
        (["--steps", "-1"], "schedule.steps is -1"),
        (["--recipe", "nothing"], "no recipe 'nothing'"),
        (["--set", "schedule.stepps=1"], "schedule.stepps is not known"),
        (["--set", "steps=1"], "section.key=value"),
        (["--size", "4"], "data.size is 4; it must be greater than or equal to 8"),
        (["--kind", "gan"], "'gan'"),
        ([], "is neither a folder nor a file; name one that exists"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_and_nothing_begins(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(tmp_path / "nowhere"), "-o", str(tmp_path / "run"), *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert words in err
    assert not (tmp_path / "run").exists()


def test_the_bundled_recipes_are_listed_each_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == recipe_names()
    assert all(len(line.partition(": ")[2]) > 20 for line in lines)
    assert DEFAULT_RECIPE in recipe_names()


@pytest.mark.parametrize("arguments", [["train", "photos", "-o", "run"], ["train", "--recipes"]])
def test_the_missing_extra_is_named(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: name != "tensorboard" or None)
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: this needs the train extra: {install_hint('train')}\n"


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs
# ---------------------------------------------------------------------------------------------------------------------


def test_at_the_end_it_says_how_good_it_is_where_it_lies_and_how_to_serve_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my run"
    command = ["train", str(photos), "-o", str(folder), "--steps", "2", *TINY]
    for progress in ("step 2: held-out PSNR ", "all steps are done already\n"):
        assert main(command) == 0
        out, err = capsys.readouterr()
        done, where, serve = out.splitlines()
        assert done.startswith("trained 2 steps in 0.")
        assert "; held-out PSNR " in done
        assert where == f"best and last weights, curves and pictures are in {folder}"
        assert serve == f"serve them: latentwire serve --model '{folder / 'best'}'"
        assert "latent-vae (vae), " in err
        assert progress in err
    assert {"config.json", "README.md"} <= {path.name for path in (folder / "best").iterdir()}


def test_a_run_that_breaks_off_is_a_failure_in_one_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--learning-rate", "1e30", "--set", "schedule.warmup_steps=0", "--steps", "40"]
    assert main(["train", str(photos), "-o", str(tmp_path / "run"), *TINY, *settings]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the gradient of step ")


def test_an_interrupted_run_says_how_to_go_on_and_ends_with_130(photos: Path, tmp_path: Path) -> None:
    command = [COMMAND, "train", str(photos), "-o", str(tmp_path / "run"), "--steps", "1000000", *TINY]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.csv"
    # Not before the first step: until then an interrupt ends it as it ends any program.
    until(lambda: process.poll() is not None or (log.exists() and log.read_text().count("\n") > 1))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("stopped at step ")
    assert err.endswith("; the same command goes on from there\n")
