# SPDX-License-Identifier: Apache-2.0
"""A folder of small photographs with a broken file among them, and what each benchmark makes of it."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from skimage import data

from benchmarks.latent_cache.__main__ import main as latent_cache
from benchmarks.rate_distortion.__main__ import main as rate_distortion
from benchmarks.roundtrip.__main__ import main as roundtrip

BROKEN = "not <b>an image.png"


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs of odd sizes, and a file that is none."""
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
    arguments = ["--model", "f8c4", str(wide_kl), "--metrics", "psnr_db", "ssimulacra2"]
    roundtrip([str(photographs), "--out", str(out), *arguments])
    return out
