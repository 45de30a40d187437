# SPDX-License-Identifier: Apache-2.0
"""Measure the rate-distortion curve of a VAE, beside JPEG.

    python examples/rd_curve_of_your_vae.py examples                      # the bundled model, images of a folder
    python examples/rd_curve_of_your_vae.py photos --model path/to/vae    # what `latentwire serve --model` takes

Prints bits per pixel and PSNR, the mean over the images. `python -m benchmarks.rate_distortion` does it in full: more
codecs, more measures, BD-rates, a report.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from latentwire_codec import compress, decompress, load_autoencoder, read_image

Pixels = npt.NDArray[np.uint8]

parser = argparse.ArgumentParser(description="Measure the rate-distortion curve of a VAE.")
parser.add_argument("images", type=Path)
parser.add_argument("--model", default="f8c4")
arguments = parser.parse_args()


def psnr(one: Pixels, other: Pixels) -> float:
    """Return the peak signal-to-noise ratio in dB."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float(10 * np.log10(255**2 / error))


def measure(name: str, encode: Callable[[Pixels], bytes], decode: Callable[[bytes], Pixels]) -> None:
    """Print one point of a curve."""
    rates, qualities = [], []
    for image in images:
        data = encode(image)
        rates.append(8 * len(data) / (image.shape[0] * image.shape[1]))
        qualities.append(psnr(image, decode(data)))
    print(f"{name:<18} {np.mean(rates):6.3f} bpp  {np.mean(qualities):6.2f} dB")


def to_jpeg(image: Pixels, quality: int) -> bytes:
    """Return a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


paths = sorted(path for path in arguments.images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
images = [read_image(path.read_bytes()) for path in paths]
model = load_autoencoder(arguments.model)

# A quality is a name, or the quantizer's step: smaller is finer.
for step in (2.0, 1.2, 0.6, 0.35, 0.17):
    measure(
        f"{arguments.model} {step}",
        lambda image, step=step: compress(image, model=model, quality=step),  # type: ignore[misc]
        lambda data: decompress(data, model=model),
    )
for jpeg_quality in (5, 10, 20, 40):
    measure(f"JPEG {jpeg_quality}", lambda image, q=jpeg_quality: to_jpeg(image, q), read_image)  # type: ignore[misc]
