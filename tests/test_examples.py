# SPDX-License-Identifier: Apache-2.0
"""The scripts in examples/ do what they say, each in a process of its own as a reader would start it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from latentwire_core.latents import Latents
from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig
from tests.integration.tiny_pipelines import RECIPES, VAES

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: str, *arguments: object) -> str:
    """Run a script, warnings as errors where they are ours to mend; return what it printed."""
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two small photographs, one of them in a folder of its own."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    with Image.open(EXAMPLES / "photo.jpg") as photo:
        photo.crop((128, 0, 256, 96)).save(folder / "one.png")
        photo.crop((128, 96, 256, 192)).save(folder / "more" / "two.png")
    return folder


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a server with the VAE of a small pipeline, and the pipeline's folder without these weights."""
    folder = tmp_path_factory.mktemp("pipeline") / "stable-diffusion"
    RECIPES["text to image"].pipeline(VAES["sd"]()).save_pretrained(folder)
    vae = folder.with_name("vae")
    shutil.move(folder / "vae", vae)
    models = (ModelSource("stable-diffusion", str(vae), latent_space="sd1"),)
    with background(ServerConfig(models=models, port=0)) as server:
        yield f"127.0.0.1:{server.port}", folder


def test_every_script_is_listed_says_how_to_run_it_and_is_tested() -> None:
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))
    listed = re.findall(r"\[`(\w+\.py)`\]", (EXAMPLES / "README.md").read_text(encoding="utf-8"))
    tests = Path(__file__).read_text(encoding="utf-8")
    assert sorted(listed) == scripts
    for script in scripts:
        assert f"    python examples/{script} " in (EXAMPLES / script).read_text(encoding="utf-8")
        assert f'run("{script}"' in tests


def test_a_folder_becomes_latents_and_a_bad_file_is_named(photos: Path, tmp_path: Path, target: str) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    printed = run("dataset_to_latents.py", photos, tmp_path / "latents", "--server", target)
    assert "broken.jpg: " in printed
    assert printed.endswith("2 encoded, 1 failed\n")
    latents = Latents.load(tmp_path / "latents" / "more" / "two.safetensors")
    assert (latents.kind, latents.image_size) == ("moments", (96, 128))


def test_a_pipeline_runs_without_the_weights_of_its_vae(pipeline: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = pipeline
    output = tmp_path / "cat.png"
    assert not list(folder.glob("vae*"))
    printed = run("pipeline_without_vae.py", folder, "abc", output, "--server", address, "--steps", 2)
    assert printed == f"{output}: 64x64\n"


def test_the_curve_of_a_vae_rises_with_its_rate(photos: Path) -> None:
    lines = run("rd_curve_of_your_vae.py", photos).splitlines()
    points = [tuple(map(float, re.findall(r"([\d.]+) (?:bpp|dB)", line))) for line in lines]
    assert [line.split()[0] for line in lines] == ["f8c4"] * 5 + ["JPEG"] * 4
    assert points[:5] == sorted(points[:5])
    assert points[5:] == sorted(points[5:])


def test_lat_files_reach_a_training_loop_through_workers(photos: Path, tmp_path: Path, target: str) -> None:
    from latentwire_client import Client

    with Client(target, model="f8c4") as client:
        for index, path in enumerate(sorted(photos.rglob("*.png"))):
            (tmp_path / f"{index}.lat").write_bytes(client.compress(path))
        (tmp_path / "other.lat").write_bytes(client.compress(Image.new("RGB", (40, 24))))
    printed = run("lat_dataloader.py", tmp_path).splitlines()
    assert [line.partition("  mean ")[0] for line in printed] == ["(2, 4, 12, 16)", "(1, 4, 3, 5)"]


def test_tritons_client_encodes_and_decodes(tmp_path: Path, target: str) -> None:
    output = tmp_path / "again.png"
    printed = run("triton_client.py", EXAMPLES / "photo.jpg", output, "--server", target)
    assert printed.splitlines() == ["(1, 512, 512, 3) uint8 -> (1, 4, 64, 64) float32", f"{output}: 512x512"]
