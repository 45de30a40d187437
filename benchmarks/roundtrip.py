# SPDX-License-Identifier: Apache-2.0
"""What a VAE loses: images through encode (mode, raw, float32) and decode, uint8-rounded.

The images have their own size, or are framed to that of a model which takes one size only.

    python -m benchmarks.roundtrip FOLDER [--model f8c4] [--json FILE]

Prints the mean and the worst of PSNR (dB), SSIM and MS-SSIM, and the size of the latents; runs in this process.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from latentwire_codec import metrics, pixels
from latentwire_codec.autoencoder import Autoencoder, load_autoencoder
from latentwire_codec.errors import CodecError
from latentwire_codec.geometry import crop, pad_to_multiple, resize_to_cover
from latentwire_codec.images import read_image

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff"}
MS_SSIM_SIDE = 161
"""MS-SSIM halves the image four times under a window of 11; smaller images have none."""


@dataclass(frozen=True)
class Row:
    """One image; bits are those of float16 latents, per pixel of the image."""

    file: str
    width: int
    height: int
    bits_per_pixel: float
    psnr_db: float
    ssim: float
    ms_ssim: float | None


def measure(model: Autoencoder, path: Path) -> Row:
    """Map an image file to its row; raises CodecError where it cannot be read, OSError where it is not there."""
    image = read_image(path.read_bytes())
    height, width = model.spec.fixed_size or image.shape[:2]
    image = resize_to_cover(image, width, height)
    padded = torch.from_numpy(pad_to_multiple(image, model.spec.downsample_factor)).unsqueeze(0)
    latents = model.encode(pixels.to_float(padded)).mode()
    decoded = crop(model.decode(latents, pixels.to_uint8)[0].numpy(), height, width)
    return Row(
        file=path.name,
        width=width,
        height=height,
        bits_per_pixel=metrics.bits_per_pixel(2 * latents.numel(), width, height),
        psnr_db=metrics.psnr(image, decoded),
        ssim=metrics.ssim(image, decoded),
        ms_ssim=metrics.ms_ssim(image, decoded) if min(height, width) >= MS_SSIM_SIDE else None,
    )


def rows(model: Autoencoder, folder: Path, console: Console) -> Iterator[Row]:
    """Measure every image below a folder; name those that cannot be read and go on."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    for path in track(paths, console=console, description=folder.name):
        try:
            yield measure(model, path)
        except (CodecError, OSError) as error:
            console.print(f"{path}: {error}")


def main() -> None:
    """Measure a folder, print a table, and write the rows where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="f8c4", help="what `serve --model` takes (default f8c4)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--json", type=Path, help="write every row to this file")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    model = load_autoencoder(arguments.model, device=arguments.device, dtype=arguments.dtype)
    measured = list(rows(model, arguments.folder, console))
    if not measured:
        sys.exit(f"no image that can be read in {arguments.folder}")
    table = Table(title=f"{arguments.model} ({model.spec.dtype}) on {len(measured)} images of {arguments.folder.name}")
    for column in ("", "mean", "worst", "image"):
        table.add_column(column)
    for name, field in (("PSNR dB", "psnr_db"), ("SSIM", "ssim"), ("MS-SSIM", "ms_ssim")):
        values = {row.file: getattr(row, field) for row in measured if getattr(row, field) is not None}
        if values:
            worst = min(values, key=values.__getitem__)
            table.add_row(name, f"{statistics.fmean(values.values()):.4f}", f"{values[worst]:.4f}", worst)
    Console().print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(row) for row in measured], indent=1))


if __name__ == "__main__":
    main()
