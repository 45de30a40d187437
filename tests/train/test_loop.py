# SPDX-License-Identifier: Apache-2.0
"""Tests of whole training runs, at toy size."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latentwire_codec.load import load_autoencoder
from latentwire_core.errors import DataError, NonFiniteError
from latentwire_train.config import ConfigError, TrainingConfig
from latentwire_train.data.source import open_data
from latentwire_train.devices import Devices
from latentwire_train.loop import Training, train
from latentwire_train.record.log import read_log
from tests.train.conftest import Watcher
from tests.waiting import until

Tiny = Callable[..., TrainingConfig]
WEIGHTS = "diffusion_pytorch_model.safetensors"


def run_alone(config: TrainingConfig, photos: Path, folder: Path) -> "subprocess.Popen[str]":
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(config.as_dict()))
    script = Path(__file__).with_name("train_tiny.py")
    return subprocess.Popen(
        [sys.executable, str(script), str(path), str(photos), str(folder)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("family", ["latent-vae", "autoencoder-kl", "vector"])
def test_a_run_of_each_family_leaves_a_model_that_loads(
    family: str, tiny: Tiny, photos: Path, tmp_path: Path, watcher: Watcher
) -> None:
    config = tiny(family)
    result = train(config, photos, tmp_path / "run", watcher)
    assert (result.steps, result.stopped) == (4, False)
    for folder in ("best", "last"):
        model = load_autoencoder(str(tmp_path / "run" / folder), device="cpu")
        images = torch.rand(1, 3, 32, 32) * 2 - 1
        assert model.decode(model.encode(images).mean).shape == images.shape
        config_json = json.loads((tmp_path / "run" / folder / "config.json").read_text())
        assert list(model.spec.scale) == pytest.approx([config_json["scaling_factor"]])
        assert 0 < config_json["scaling_factor"] < 1e4
        assert "PSNR" in (tmp_path / "run" / folder / "README.md").read_text()
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"run.json", "log.csv", "curves.png", "tensorboard", "pictures", "state.pt"} <= names
    pictures = {path.name for path in (tmp_path / "run" / "pictures").iterdir()}
    assert "reconstructions-0000004.png" in pictures
    assert ("samples-0000004.png" in pictures) == (family == "vector")
    assert [step for step, _ in watcher.steps] == [2, 4]
    assert {"train/l1", "train/kl", "train/psnr", "train/total", "learning_rate"} <= watcher.steps[0][1].keys()
    shown = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Images("reconstructions")
    with Image.open(tmp_path / "run" / "pictures" / "reconstructions-0000004.png") as image:
        assert [(event.step, event.width, event.height) for event in shown] == [(4, *image.size)]
    logged = [row for row in read_log(tmp_path / "run" / "log.csv") if "held_out/psnr" in row.figures]
    assert logged[-1].figures["held_out/psnr"] == pytest.approx(watcher.evaluations[-1][1]["held_out/psnr"])
    assert result.best == watcher.evaluations[-1][1]


def test_an_autoencoder_kl_trained_here_loads_in_unmodified_diffusers(
    tiny: Tiny, photos: Path, tmp_path: Path, watcher: Watcher
) -> None:
    from diffusers import AutoencoderKL

    train(tiny("autoencoder-kl"), photos, tmp_path / "run", watcher)
    theirs = AutoencoderKL.from_pretrained(tmp_path / "run" / "best").eval()
    ours = load_autoencoder(str(tmp_path / "run" / "best"), device="cpu")
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        expected = theirs.encode(images).latent_dist.mean
    torch.testing.assert_close(ours.encode(images).mean, expected, atol=1e-5, rtol=1e-5)


def test_training_lowers_the_loss_on_held_out_images(
    tiny: Tiny, photos: Path, tmp_path: Path, watcher: Watcher
) -> None:
    # This family does not begin at the best linear codec of these very images.
    schedule = {"steps": 60, "batch_size": 4, "learning_rate": 1e-2, "ema_decay": 0.8}
    config = tiny("autoencoder-kl", schedule=schedule, run={"evaluate_every": 20})
    train(config, photos, tmp_path / "run", watcher)
    first, second, third = (figures["held_out/loss"] for _, figures in watcher.evaluations)
    assert third < second < first
    assert watcher.steps[-1][1]["train/total"] < 0.7 * watcher.steps[0][1]["train/total"]


def test_a_run_that_is_killed_reaches_the_weights_of_one_that_is_not(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    # Everything that has a state: discriminator, moments, two optimizers, EMA.
    config = tiny(
        data={"held_out_images": 2},
        loss={
            "weights": {"l1": 1.0, "kl": 1e-3, "adversarial": 0.1, "feature_matching": 0.1},
            "quantization_step": 0.25,
            "adversarial_from": 4,
            "discriminator_width": 4,
        },
        schedule={"steps": 24, "batch_size": 2, "optimizer": "muon", "learning_rate": 1e-3},
        run={"evaluate_every": 8, "save_every": 3, "log_every": 2},
    )
    whole = run_alone(config, photos, tmp_path / "whole")
    assert whole.communicate()[0] == "done 24\n"
    state = tmp_path / "killed" / "state.pt"

    def saved_ns() -> int:
        return state.stat().st_mtime_ns if state.exists() else 0

    def killed_in_time() -> bool:
        before_ns = saved_ns()
        process = run_alone(config, photos, tmp_path / "killed")
        # Killed somewhere between two checkpoints: after the next one that it makes.
        until(lambda: process.poll() is not None or saved_ns() != before_ns)
        runs = process.poll() is None
        process.kill()
        process.communicate()
        return runs

    assert sum(killed_in_time() for _ in range(3)) == 3, "the run ended before it was killed: give it more steps"
    last = run_alone(config, photos, tmp_path / "killed")
    assert last.communicate()[0] == "done 24\n"
    for folder in ("best", "last"):
        expected, found = (load_file(tmp_path / name / folder / WEIGHTS) for name in ("whole", "killed"))
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    steps = [[row.step for row in read_log(tmp_path / name / "log.csv")] for name in ("whole", "killed")]
    assert steps[0] == steps[1]


def test_an_interrupted_run_saves_and_says_so(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    config = tiny(schedule={"steps": 10**6}, run={"evaluate_every": 10**6, "save_every": 10**6, "log_every": 1})
    process = run_alone(config, photos, tmp_path / "run")
    # Not before the first step: until then an interrupt ends it as it ends any program.
    until(lambda: read_log(tmp_path / "run" / "log.csv") or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    word, steps = process.communicate()[0].split()
    assert word == "stopped"
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == int(steps)


def test_a_budget_in_minutes_ends_the_run(tiny: Tiny, photos: Path, tmp_path: Path, watcher: Watcher) -> None:
    config = tiny(schedule={"steps": 0, "minutes": 0.02, "warmup_steps": 0}, run={"evaluate_every": 10**6})
    result = train(config, photos, tmp_path / "run", watcher)
    assert result.minutes >= 0.02
    assert result.steps > 0
    assert len(watcher.evaluations) == 1
    again = train(config, photos, tmp_path / "run", watcher)
    assert again.steps == result.steps


def test_a_plain_autoencoder_has_no_kl_and_a_point_for_a_posterior(
    tiny: Tiny, photos: Path, tmp_path: Path, watcher: Watcher
) -> None:
    config = tiny("vector", model={"family": "vector", "kind": "ae", "options": {"latent_dim": 4}})
    train(config, photos, tmp_path / "run", watcher)
    assert "train/kl" not in watcher.steps[0][1]
    posterior = load_autoencoder(str(tmp_path / "run" / "best"), device="cpu").encode(torch.zeros(1, 3, 32, 32))
    assert posterior.logvar is not None
    assert posterior.logvar.max() <= -29


def test_weights_to_start_from_are_those_of_another_run(
    tiny: Tiny, photos: Path, tmp_path: Path, watcher: Watcher
) -> None:
    train(tiny(), photos, tmp_path / "first", watcher)
    start = str(tmp_path / "first" / "last")
    # A step of no length: what comes out is what went in.
    still = {"steps": 1, "batch_size": 2, "learning_rate": 1e-30, "warmup_steps": 0}
    config = tiny(model={"family": "latent-vae", "init": start}, schedule=still)
    train(config, photos, tmp_path / "second", watcher)
    expected, found = (load_file(tmp_path / name / "last" / WEIGHTS) for name in ("first", "second"))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=0)
    with pytest.raises(ConfigError, match="AutoencoderLatentVAE"):
        train(tiny("vector", model={"family": "vector", "init": start}), photos, tmp_path / "third", watcher)


def test_a_folder_of_another_run_is_refused_by_name(tiny: Tiny, photos: Path, tmp_path: Path, watcher: Watcher) -> None:
    config = tiny()
    train(config, photos, tmp_path / "run", watcher)
    other = dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, learning_rate=0.5))
    with pytest.raises(DataError, match=r"config\.schedule\.learning_rate \(0\.001 there, 0\.5 here\)"):
        train(other, photos, tmp_path / "run", watcher)
    with pytest.raises(DataError, match=r"data_digest \([0-9a-f]{40}\.\.\. there, [0-9a-f]{40}\.\.\. here\)"):
        train(config, photos / "a", tmp_path / "run", watcher)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="not empty"):
        train(config, photos, tmp_path / "mine", watcher)


def test_what_changes_no_step_may_differ_when_a_run_goes_on(
    tiny: Tiny, photos: Path, tmp_path: Path, watcher: Watcher
) -> None:
    config = tiny()
    train(config, photos, tmp_path / "run", watcher)
    other = dataclasses.replace(config, run=dataclasses.replace(config.run, save_every=1))
    assert train(other, photos, tmp_path / "run", watcher).steps == 4


def test_a_damaged_image_is_reported_by_name_and_left_out(
    tiny: Tiny, photos: Path, tmp_path: Path, watcher: Watcher
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for path in photos.rglob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    whole = (folder / "00.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no image")
    Image.new("RGB", (8, 40)).save(folder / "narrow.png")
    train(tiny(schedule={"steps": 12, "batch_size": 2}), folder, tmp_path / "run", watcher)
    assert {problem.name for problem in watcher.plans[0].problems} == {"text.png", "narrow.png"}
    assert {problem.name for problem in watcher.problems} == {"torn.png"}
    skipped = (tmp_path / "run" / "skipped.txt").read_text()
    assert sorted(line.split(":")[0] for line in skipped.splitlines()) == ["narrow.png", "text.png", "torn.png"]
    assert "| skipped files | 3 |" in (tmp_path / "run" / "last" / "README.md").read_text()


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(
    tiny: Tiny, photos: Path, tmp_path: Path, watcher: Watcher
) -> None:
    config = tiny(schedule={"steps": 40, "batch_size": 2, "learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(NonFiniteError, match="learning_rate"):
        train(config, photos, tmp_path / "run", watcher)


def test_a_size_that_the_network_cannot_take_is_refused(
    tiny: Tiny, photos: Path, tmp_path: Path, watcher: Watcher
) -> None:
    with pytest.raises(ConfigError, match=r"data\.size is 36"):
        train(tiny(data={"size": 36}), photos, tmp_path / "run", watcher)


@pytest.mark.slow
def test_two_processes_take_the_steps_that_one_takes(tiny: Tiny, photos: Path, tmp_path: Path) -> None:
    config = tiny(model={"family": "latent-vae", "kind": "ae", "options": {"widths": [8, 16, 16]}})
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.as_dict()))
    script = str(Path(__file__).with_name("train_tiny.py"))
    alone = [sys.executable, script]
    together = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", script]
    for name, command in (("alone", alone), ("together", together)):
        arguments = [*command, str(path), str(photos), str(tmp_path / name)]
        subprocess.run(arguments, check=True, env=os.environ | {"ACCELERATE_USE_CPU": "1"})
    expected, found = (load_file(tmp_path / name / "last" / WEIGHTS) for name in ("alone", "together"))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=1e-3)


def test_processes_that_cannot_share_a_batch_are_refused(
    tiny: Tiny, photos: Path, tmp_path: Path, watcher: Watcher
) -> None:
    config, devices = tiny(), Devices("cpu")
    devices.ranks = 3
    with pytest.raises(ConfigError, match=r"schedule\.batch_size is 2; 3 processes must share it"):
        Training(config, open_data(photos, config.data), tmp_path, watcher, devices)
