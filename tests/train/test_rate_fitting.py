# SPDX-License-Identifier: Apache-2.0
"""What a channel's errors cost decides its unit; images that cannot be read are left out."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from latentwire_codec.load import load_autoencoder
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_train.dev import prior_for, units_of


@pytest.fixture
def paths(tmp_path: Path, astronaut: npt.NDArray[np.uint8]) -> list[Path]:
    """Two photographs, and a file that is none."""
    for index in range(2):
        Image.fromarray(astronaut[index * 90 : index * 90 + 41, 150:190]).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes(b"none")
    return sorted(tmp_path.glob("*.png"))


@pytest.fixture
def model(tiny_kl_folder: Path) -> Autoencoder:
    return load_autoencoder(str(tiny_kl_folder))


def test_a_channel_whose_errors_cost_more_has_a_smaller_unit(
    tiny_kl_folder: Path, model: Autoencoder, paths: list[Path], tmp_path: Path
) -> None:
    before = units_of(model, paths)
    assert len(before) == 4
    assert all(unit > 0 for unit in before)
    louder: Any = AutoencoderKL.from_pretrained(tiny_kl_folder)
    with torch.no_grad():
        louder.post_quant_conv.weight[:, 2] *= 10
    louder.save_pretrained(tmp_path / "louder")
    after = units_of(load_autoencoder(str(tmp_path / "louder")), paths)
    assert after[2] / after[0] < 0.5 * before[2] / before[0]


def test_a_prior_is_fitted_to_the_latents_of_all_images_that_can_be_read(model: Autoencoder, paths: list[Path]) -> None:
    fitted = prior_for([model], paths)
    assert fitted.frequencies.min() >= 1
    assert fitted.table_id == prior_for([model], [path for path in paths if "broken" not in path.name]).table_id
