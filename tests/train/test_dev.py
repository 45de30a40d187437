# SPDX-License-Identifier: Apache-2.0
"""The developer's command: units of a model, and the tables that code latents."""

import json
from pathlib import Path

import pytest

from latentwire_codec.lat.tables import load_tables
from latentwire_train.dev import main


def test_units_are_measured_and_kept_with_the_model(
    photos: Path, tiny_kl_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((tiny_kl_folder / "config.json").read_text())
    assert main(["units", str(tiny_kl_folder), str(photos), "--images", "2"]) == 0
    units = json.loads(capsys.readouterr().out)
    assert len(units) == 4
    assert min(units) > 0
    assert json.loads((tiny_kl_folder / "config.json").read_text()) == before | {"latent_units": units}


def test_tables_are_fitted_to_a_folder_and_can_be_loaded(photos: Path, tiny_kl_folder: Path, tmp_path: Path) -> None:
    out_file = tmp_path / "tables.safetensors"
    assert main(["tables", str(photos), str(out_file), "--model", str(tiny_kl_folder), "--images", "3"]) == 0
    assert load_tables(out_file).frequencies.min() >= 1


def test_a_refusal_is_one_line_and_status_1(
    photos: Path, tiny_kl_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["units", str(tiny_kl_folder), str(photos), "--images", "0"]) == 1
    assert capsys.readouterr().err == "--images is 0; it must be >= 1\n"
