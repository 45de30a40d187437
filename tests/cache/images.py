# SPDX-License-Identifier: Apache-2.0
"""Folders of small generated images, and the settings of a small VAE."""

from pathlib import Path

import numpy as np
from PIL import Image

from latentwire_cache.settings import Model

SIZES = ((32, 32), (48, 32), (32, 48))
MODEL = Model("tiny", "ab" * 32, (0.5,), (0.25,), 4, 4, True, "float32")


def make_images(folder: Path, count: int, seed: int = 0) -> Path:
    """Write PNG files 0000.png ... of three sizes, with a caption each."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(seed)
    for index in range(count):
        write_image(folder / f"{index:04}.png", numbers, SIZES[index % len(SIZES)])
        (folder / f"{index:04}.txt").write_text(f"caption {index}")
    return folder


def write_image(path: Path, numbers: np.random.Generator, size: tuple[int, int]) -> None:
    small = numbers.integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)
