# SPDX-License-Identifier: Apache-2.0
"""A folder of small photographs with a broken file among them, and the report of each benchmark on it."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from skimage import data

from benchmarks.latent_cache.__main__ import main as latent_cache
from benchmarks.rate_distortion.__main__ import main as rate_distortion
from benchmarks.roundtrip.__main__ import main as roundtrip
from benchmarks.serving.__main__ import main as serving
from benchmarks.throughput.__main__ import main as throughput

BROKEN = "not <b>an image.png"


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs of odd sizes, and a file that is not an image."""
    folder = tmp_path_factory.mktemp("photographs")
    Image.fromarray(data.astronaut()[:163, 150:320]).save(folder / "astronaut.png")
    (folder / "below").mkdir()
    Image.fromarray(data.chelsea()[60:160, 100:230]).save(folder / "below" / "chelsea.png")
    (folder / BROKEN).write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    return folder


@pytest.fixture(scope="session")
def wide_kl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small AutoencoderKL with random weights, f = 4, C = 32."""
    torch.manual_seed(1)
    model = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[8, 8, 8],
        latent_channels=32,
        norm_num_groups=4,
    )
    folder = tmp_path_factory.mktemp("models") / "wide"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def rate_distortion_run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `python -m benchmarks.rate_distortion` wrote."""
    out = tmp_path_factory.mktemp("runs") / "rate_distortion"
    arguments = ["--codecs", "JPEG", "WebP", "--metrics", "psnr_db", "ms_ssim", "butteraugli"]
    rate_distortion([str(photographs), "--out", str(out), *arguments])
    return out


@pytest.fixture(scope="session")
def latent_cache_run(photographs: Path, wide_kl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `python -m benchmarks.latent_cache` wrote for a model of 4 and one of 32 channels."""
    out = tmp_path_factory.mktemp("runs") / "latent_cache"
    arguments = ["--model", "f8c4", str(wide_kl), "--quality", "cache", "0.7"]
    latent_cache([str(photographs), "--out", str(out), *arguments])
    return out


@pytest.fixture(scope="session")
def roundtrip_run(photographs: Path, wide_kl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `python -m benchmarks.roundtrip` wrote for two models."""
    out = tmp_path_factory.mktemp("runs") / "roundtrip"
    arguments = [
        "--model",
        "f8c4",
        str(wide_kl),
        "--metrics",
        "psnr_db",
        "ssimulacra2",
        "--rounded",
        "0.25",
        "--bfloat16",
    ]
    roundtrip([str(photographs), "--out", str(out), *arguments])
    return out


@pytest.fixture(scope="session")
def throughput_run(tiny_kl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `python -m benchmarks.throughput` wrote for two networks; with next to no warming up."""
    out = tmp_path_factory.mktemp("runs") / "throughput"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.report.timing.WARM_UP_S", 0.0)
        patch.setattr("benchmarks.report.timing.SAMPLE_S", 0.0)
        patch.setattr("benchmarks.throughput.cases.MATRIX_SIDES", {"cpu": 64})
        arguments = ["--models", "f8c4", str(tiny_kl), "--sizes", "64", "--repeats", "3", "--device", "cpu"]
        throughput([*arguments, "--out", str(out)])
    return out


@pytest.fixture(scope="session")
def serving_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `python -m benchmarks.serving` wrote for one small size."""
    out = tmp_path_factory.mktemp("runs") / "serving"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.serving.measuring.OPEN_LEAST", 4)
        arguments = ["--sizes", "64", "--concurrency", "1", "3", "--seconds", "0.2", "--device", "cpu"]
        serving([*arguments, "--shares", "0.5", "--out", str(out)])
    return out
