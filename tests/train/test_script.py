# SPDX-License-Identifier: Apache-2.0
"""Tests of training as a plain script, where nothing is installed but torch, numpy, Pillow and safetensors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from latentwire_codec.lat.tables import load_tables
from latentwire_train.__main__ import main
from latentwire_train.data.pack import open_pack

# What such a machine lacks, a finder refuses to import.
BARE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"diffusers", "accelerate", "matplotlib", "tensorboard", "rich", "typer", "grpc"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
from latentwire_train.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
OVERRIDES = (
    "model.options={widths=[8,16,16],encoder_depths=[1,1],decoder_depths=[1,1,1]}",
    "data.size=32", "data.held_out_share=0.25", "schedule.steps=2", "schedule.batch_size=2", "run.device=cpu",
    "run.saved_precision=bfloat16",
)  # fmt: skip


def script(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", BARE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_a_pack_of_images_is_made_and_trained_on_with_torch_alone(photos: Path, tmp_path: Path) -> None:
    pack = tmp_path / "photos.npz"
    packed = script("pack", str(photos), str(pack), "--short-side", "40", "--quality", "80")
    assert packed.returncode == 0, packed.stderr
    images, _ = open_pack(pack)
    assert len(images) == 12
    trained = script("train", "latent-vae", str(pack), str(tmp_path / "run"), *OVERRIDES)
    assert trained.returncode == 0, trained.stderr
    assert "trained 2 steps" in trained.stderr
    weights = load_file(tmp_path / "run" / "best" / "diffusion_pytorch_model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.bfloat16"}
    card = (tmp_path / "run" / "best" / "README.md").read_text()
    assert images.source_digest in card


def test_a_refusal_is_one_line_and_status_1(photos: Path, tmp_path: Path) -> None:
    done = script("train", "latent-vae", str(photos), str(tmp_path / "run"), "data.size=33", "data.held_out_share=0.25")
    assert done.returncode == 1
    assert "data.size is 33" in done.stderr.splitlines()[-1]


def test_units_are_measured_and_kept_with_the_model(
    photos: Path, tiny_kl_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((tiny_kl_folder / "config.json").read_text())
    assert main(["units", str(tiny_kl_folder), str(photos), "--images", "2"]) == 0
    units = json.loads(capsys.readouterr().out)
    assert len(units) == 4
    assert min(units) > 0
    assert json.loads((tiny_kl_folder / "config.json").read_text()) == before | {"latent_units": units}


def test_a_prior_is_fitted_to_a_folder_and_can_be_loaded(photos: Path, tiny_kl_folder: Path, tmp_path: Path) -> None:
    out_file = tmp_path / "prior.safetensors"
    assert main(["prior", str(photos), str(out_file), "--model", str(tiny_kl_folder), "--images", "3"]) == 0
    assert load_tables(out_file).frequencies.min() >= 1


def test_no_images_to_measure_with_are_refused(
    photos: Path, tiny_kl_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["units", str(tiny_kl_folder), str(photos), "--images", "0"]) == 1
    assert "--images is 0; it must be >= 1" in capsys.readouterr().err
