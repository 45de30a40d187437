# SPDX-License-Identifier: Apache-2.0
"""What the reader of a page has: a pipeline, a VAE in one file, photographs, running servers."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the reader's files, one photograph of them broken."""
    from diffusers import AutoencoderKL
    from safetensors.torch import save_file

    from tests.codec.checkpoints.layouts import to_ldm
    from tests.integration.tiny_pipelines import RECIPES, VAES

    folder = tmp_path_factory.mktemp("shelf")
    pipeline = RECIPES["text to image"].pipeline(VAES["sd"]())
    pipeline.save_pretrained(folder / "stable-diffusion")
    vae = AutoencoderKL(3, 3, ["DownEncoderBlock2D"] * 4, ["UpDecoderBlock2D"] * 4, [32] * 4)
    save_file(to_ldm(vae.state_dict(), levels=4), folder / "vae.safetensors")
    Image.fromarray(data.chelsea()).save(folder / "cat.png")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "photos").mkdir()
    Image.fromarray(data.chelsea()[:64, :64]).save(folder / "photos" / "good.jpg")
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    return folder


@pytest.fixture
def desk(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shelf to work in: the current folder."""
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def servers(shelf: Path, target: str) -> Iterator[Callable[[str], str]]:
    """Map a block to the block with the address of a server that holds what it needs."""
    from latentwire_server.app import background
    from latentwire_server.config import ModelSource, ServerConfig

    models = (ModelSource("stable-diffusion", str(shelf / "stable-diffusion")),)
    with background(ServerConfig(models=models, port=0, http_port=0)) as server:
        yield lambda block: block.replace("localhost:8000", f"127.0.0.1:{server.http_port}").replace(
            "localhost:50051", f"127.0.0.1:{server.port}" if "stable-diffusion" in block else target
        )
