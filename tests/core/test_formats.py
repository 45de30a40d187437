# SPDX-License-Identifier: Apache-2.0
"""Models are called by the last part of where they come from."""

from pathlib import Path

import pytest

from latentwire_core.formats import model_name


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("f8c4", "f8c4"),
        ("stabilityai/sd-vae-ft-mse", "sd-vae-ft-mse"),
        ("/home/someone/runs/best/", "best"),
        ("/models/vae-ft-mse-840000.safetensors", "vae-ft-mse-840000"),
        ("old.CKPT", "old"),
        ("runs/f8c4.v2", "f8c4.v2"),
        (".", Path.cwd().name),
    ],
)
def test_a_model_is_called_by_the_last_part_of_its_source_without_the_suffix_of_weights(source: str, name: str) -> None:
    assert model_name(source) == name


def test_a_link_is_called_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / ("0a1b" * 16)).write_bytes(b"x")
    (tmp_path / "sdxl_vae.safetensors").symlink_to(tmp_path / "blobs" / ("0a1b" * 16))
    assert model_name(str(tmp_path / "sdxl_vae.safetensors")) == "sdxl_vae"
