# SPDX-License-Identifier: Apache-2.0
"""The developer's command: units of a model, and the tables that code latents."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentwire_codec.images import pixels
from latentwire_codec.lat.tables import load_tables
from latentwire_codec.load import load_autoencoder
from latentwire_train.dev import main


def test_units_and_scale_are_measured_and_kept_with_the_model(
    photos: Path, tiny_kl_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((tiny_kl_folder / "config.json").read_text())
    assert main(["measure", str(tiny_kl_folder), str(photos), "--images", "12"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert len(set(measured["latent_units"])) == 4
    assert min(measured["latent_units"]) > 0
    assert json.loads((tiny_kl_folder / "config.json").read_text()) == before | measured
    model = load_autoencoder(str(tiny_kl_folder))
    images = [pixels.to_float(torch.tensor(np.asarray(Image.open(path))[None])) for path in photos.rglob("*.png")]
    samples = torch.cat([model.encode(image).sample([0]).flatten() for image in images])
    assert measured["shift_factor"] is None
    assert float(samples.std()) * measured["scaling_factor"] == pytest.approx(1, rel=0.05)


def test_equal_units_are_the_geometric_mean_of_the_deviations(
    photos: Path, tiny_kl_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["measure", str(tiny_kl_folder), str(photos), "--images", "2", "--equal-units"]) == 0
    equal = json.loads(capsys.readouterr().out)["latent_units"]
    assert main(["measure", str(tiny_kl_folder), str(photos), "--images", "2"]) == 0
    measured = json.loads(capsys.readouterr().out)["latent_units"]
    assert equal == [equal[0]] * 4
    assert equal[0] == pytest.approx(float(np.exp(np.log(measured).mean())), rel=1e-3)


def test_tables_are_fitted_to_a_folder_and_can_be_loaded(photos: Path, tiny_kl_folder: Path, tmp_path: Path) -> None:
    out_file = tmp_path / "tables.safetensors"
    assert main(["tables", str(photos), str(out_file), "--model", str(tiny_kl_folder), "--images", "3"]) == 0
    assert load_tables(out_file).frequencies.min() >= 1


def test_a_refusal_is_one_line_and_status_1(
    photos: Path, tiny_kl_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["measure", str(tiny_kl_folder), str(photos), "--images", "0"]) == 1
    assert capsys.readouterr().err == "--images is 0; it must be >= 1\n"
