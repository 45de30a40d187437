# SPDX-License-Identifier: Apache-2.0
"""From pictures to a served model: `latentwire train`, then a server that holds RUN/best of every family."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentwire_cli import main
from latentwire_client import Client
from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig
from tests.conftest import Pixels

SIDE = 32
OPTIONS = {
    "latent-vae": "{widths=[8,16,16],encoder_depths=[1,1],decoder_depths=[1,1,1]}",
    "autoencoder-kl": "{block_out_channels=[8,8],layers_per_block=1,norm_num_groups=4}",
    "vector": "{latent_dim=6}",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, astronaut: Pixels) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for number in range(8):
        Image.fromarray(astronaut[20 * number :, 30 * number :][:48, :40]).save(root / f"{number}.png")
    return root


def test_what_is_trained_here_is_served(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for family, options in OPTIONS.items():
        command = [
            "train", str(pictures), "-o", str(tmp_path / family), "--recipe", family, "--size", str(SIDE),
            "--steps", "3", "--batch", "2", "--device", "cpu",
            "--set", f"model.options={options}", "--set", "data.held_out_share=0.3",
        ]  # fmt: skip
        assert main(command) == 0
        assert str(tmp_path / family / "best") in capsys.readouterr().out
    models = tuple(ModelSource(family, str(tmp_path / family / "best")) for family in OPTIONS)
    with background(ServerConfig(models=models, port=0)) as server:
        for family in OPTIONS:
            with Client(f"127.0.0.1:{server.port}", model=family) as client:
                image = np.zeros((1, SIDE, SIDE, 3), np.uint8)
                latents = client.encode(image)
                assert client.decode_array(latents).shape == image.shape
                info = next(model for model in client.info().models if model.name == family)
                assert info.is_vector == (family == "vector")
                assert info.fixed_size == ((SIDE, SIDE) if family == "vector" else None)
                assert len(info.scale) == 1
                assert info.scale[0] > 0
