# SPDX-License-Identifier: Apache-2.0
"""The README's Python blocks run as they stand, and print what they say they print."""

import contextlib
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file
from skimage import data

from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig
from tests.codec.checkpoints.layouts import to_ldm
from tests.integration.tiny_pipelines import RECIPES, VAES

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_picture_comes_within_ten_lines_and_code_with_output_within_thirty() -> None:
    lines = README.splitlines()
    assert any(line.startswith("![") for line in lines[:10])
    assert "client.decode" in "\n".join(lines[:30])
    assert "# Latents(" in "\n".join(lines[:30])


def test_every_relative_link_leads_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", README):
        assert (Path(__file__).parents[1] / link).exists(), link


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's reader has: a pipeline, a VAE in one file, photographs."""
    folder = tmp_path_factory.mktemp("shelf")
    pipeline = RECIPES["text to image"].pipeline(VAES["sd"]())
    pipeline.save_pretrained(folder / "stable-diffusion")
    vae = AutoencoderKL(3, 3, ["DownEncoderBlock2D"] * 4, ["UpDecoderBlock2D"] * 4, [32] * 4)
    save_file(to_ldm(vae.state_dict(), levels=4), folder / "vae.safetensors")
    Image.fromarray(data.chelsea()).save(folder / "cat.png")
    (folder / "photos").mkdir()
    Image.fromarray(data.chelsea()[:64, :64]).save(folder / "photos" / "good.jpg")
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    return folder


@pytest.fixture(scope="module")
def servers(shelf: Path, target: str) -> Iterator[Callable[[str], str]]:
    """Block -> the block with the address of a server that holds what it needs."""
    models = (ModelSource("stable-diffusion", str(shelf / "stable-diffusion")),)
    with background(ServerConfig(models=models, port=0, http_port=0)) as server:
        yield lambda block: block.replace("localhost:8000", f"127.0.0.1:{server.http_port}").replace(
            "localhost:50051", f"127.0.0.1:{server.port}" if "stable-diffusion" in block else target
        )


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0] for block in BLOCKS])
def test_a_python_block_runs_and_prints_what_it_says(
    block: str, servers: Callable[[str], str], shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    program = servers(block)
    if "tritonclient" in block:
        # Its messages and those of other packages cannot be in one process.
        printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    else:
        with contextlib.redirect_stdout(io.StringIO()) as captured:
            exec(compile(program, "README.md", "exec"), {})
        printed = captured.getvalue()
    claimed = re.findall(r"^\s*print\(.*\n\s*# (.*)$", block, re.MULTILINE)
    assert printed.splitlines() == claimed
    if "encode_stream" in block:
        assert [path.name for path in Path("latents").iterdir()] == ["good.safetensors"]
