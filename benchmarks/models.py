# SPDX-License-Identifier: Apache-2.0
"""VAEs side by side on a folder of images: what each loses, also with coarser latents, and how fast it is.

    python -m benchmarks.models FOLDER MODEL [MODEL ...] [--spread-of FOLDER] [--bfloat16] [--json FILE]

Prints a Markdown table, one column for each model. Images keep their size; the mode of the posterior, float32, output
rounded to uint8. "Rounded at s" means latents rounded to multiples of s standard deviations of their channel, over the
latents of the images measured on, or of up to 100 in the folder of --spread-of. Times are medians at 512x512, taken in
turn, and their ratio to the first model's.
"""

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from benchmarks.report.folder import image_files
from latentwire_codec.images import pixels
from latentwire_codec.images.files import read_image
from latentwire_codec.images.geometry import Pixels, crop, pad_to_multiple
from latentwire_codec.load import load_autoencoder
from latentwire_codec.metrics import scores
from latentwire_codec.runtime.autoencoder import Autoencoder

SPREAD_IMAGES = 100
STEPS = (0.125, 0.25, 0.5, 1.0)
TIMED_SIDE, TIMED_CALLS, WARM_UP_CALLS = 512, 7, 2


@dataclass
class Column:
    """What is known of one model.

    Attributes:
        name: of the model.
        figures: means over the images, by the row's name.
        encode_s: medians, seconds.
        decode_s: likewise.
    """

    name: str
    figures: dict[str, str] = field(default_factory=dict)
    encode_s: float = 0.0
    decode_s: float = 0.0


def encode_all(model: Autoencoder, images: Sequence[Pixels]) -> list[Tensor]:
    """Map images to their latents, each (1,C,h,w)."""
    f = model.spec.downsample_factor
    padded = (torch.from_numpy(pad_to_multiple(image, f)).unsqueeze(0) for image in images)
    return [model.encode(pixels.to_float(batch)).mode() for batch in padded]


def decode_all(model: Autoencoder, latents: Sequence[Tensor], images: Sequence[Pixels]) -> list[Pixels]:
    """Map latents to images of the sizes of `images`."""
    decoded = (model.decode(z, pixels.to_uint8)[0].numpy() for z in latents)
    return [crop(y, *image.shape[:2]) for y, image in zip(decoded, images, strict=True)]


def spread(latents: Sequence[Tensor]) -> Tensor:
    """Map latents, each (1,C,h,w), to the standard deviations (1,C,1,1) of their channels."""
    return torch.cat([z[0].flatten(1) for z in latents], dim=1).std(dim=1).view(1, -1, 1, 1)


def quality(model: Autoencoder, images: Sequence[Pixels], others: Sequence[Pixels]) -> dict[str, str]:
    """Map images, and others for the spread of latents, to the figures of a model, by the row's name."""
    latents = encode_all(model, images)
    deviations = spread(encode_all(model, others) if others else latents)
    pairs = list(zip(images, decode_all(model, latents, images), strict=True))
    psnrs = [scores.psnr(*pair) for pair in pairs]
    figures = {
        "parameters": f"{model.spec.parameters:,}",
        "PSNR dB, mean (worst)": f"{statistics.fmean(psnrs):.3f} ({min(psnrs):.2f})",
        "SSIM": f"{statistics.fmean(scores.ssim(*pair) for pair in pairs):.4f}",
        "MS-SSIM": f"{statistics.fmean(scores.ms_ssim(*pair) for pair in pairs):.4f}",
        "SSIMULACRA2": f"{statistics.fmean(scores.ssimulacra2(*pair) for pair in pairs):.2f}",
    }
    for step in STEPS:
        multiple = step * deviations
        coarse = decode_all(model, [torch.round(z / multiple) * multiple for z in latents], images)
        coarse_psnrs = [scores.psnr(*pair) for pair in zip(images, coarse, strict=True)]
        mean = statistics.fmean(coarse_psnrs)
        figures[f"PSNR dB rounded at {step} (loss)"] = f"{mean:.3f} ({statistics.fmean(psnrs) - mean:.3f})"
    return figures


def half_precision(source: str, images: Sequence[Pixels]) -> str:
    """Map images to the mean PSNR in dB of a model in bfloat16."""
    model = load_autoencoder(source, dtype="bfloat16")
    decoded = decode_all(model, encode_all(model, images), images)
    return f"{statistics.fmean(scores.psnr(*pair) for pair in zip(images, decoded, strict=True)):.3f}"


def take_times(models: Sequence[Autoencoder], columns: Sequence[Column]) -> None:
    """Time encoding and decoding of one 512x512 image, the models in turn."""
    image = torch.rand(1, 3, TIMED_SIDE, TIMED_SIDE) * 2 - 1
    latents = [model.encode(image).mode() for model in models]
    encode_s: list[list[float]] = [[] for _ in models]
    decode_s: list[list[float]] = [[] for _ in models]
    for call in range(WARM_UP_CALLS + TIMED_CALLS):
        for model, z, encodes, decodes in zip(models, latents, encode_s, decode_s, strict=True):
            started = time.perf_counter()
            model.encode(image)
            between = time.perf_counter()
            model.decode(z)
            ended = time.perf_counter()
            if call >= WARM_UP_CALLS:
                encodes.append(between - started)
                decodes.append(ended - between)
    for column, encodes, decodes in zip(columns, encode_s, decode_s, strict=True):
        column.encode_s, column.decode_s = statistics.median(encodes), statistics.median(decodes)
        first = columns[0]
        column.figures["encode 512x512, ms (ratio)"] = (
            f"{1000 * column.encode_s:.0f} ({column.encode_s / first.encode_s:.2f})"
        )
        column.figures["decode 512x512, ms (ratio)"] = (
            f"{1000 * column.decode_s:.0f} ({column.decode_s / first.decode_s:.2f})"
        )


def markdown(columns: Sequence[Column]) -> str:
    """Map columns to a table."""
    lines = [["", *(column.name for column in columns)], ["---"] * (len(columns) + 1)]
    lines += [[row, *(column.figures[row] for column in columns)] for row in columns[0].figures]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_json(columns: Sequence[Column]) -> str:
    """Map columns to JSON."""
    table: Mapping[str, Mapping[str, str]] = {column.name: column.figures for column in columns}
    return json.dumps(table, indent=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+", help="what `latentwire serve --model` takes")
    parser.add_argument("--spread-of", type=Path, help="folder whose latents give the standard deviations")
    parser.add_argument("--bfloat16", action="store_true", help="measure it too; slow on a CPU without it")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    try:
        files = image_files(options.folder)
        spread_files = image_files(options.spread_of) if options.spread_of else []
    except FileNotFoundError as error:
        parser.error(str(error))
    every = -(-len(spread_files) // SPREAD_IMAGES) or 1
    images = [read_image(file.path.read_bytes()) for file in files]
    others = [read_image(file.path.read_bytes()) for file in spread_files[::every]]
    columns = [Column(str(name)) for name in options.models]
    models = [load_autoencoder(name, dtype="float32") for name in options.models]
    console = Console(stderr=True)
    for model, column in track(list(zip(models, columns, strict=True)), console=console, description="models"):
        column.figures |= quality(model, images, others)
        if options.bfloat16:
            column.figures["PSNR dB in bfloat16"] = half_precision(column.name, images)
    take_times(models, columns)
    print(f"{len(images)} images of {options.folder.name}, float32 on {models[0].spec.device}\n\n{markdown(columns)}")
    if options.json is not None:
        options.json.write_text(as_json(columns))


if __name__ == "__main__":
    main()
