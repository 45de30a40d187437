# SPDX-License-Identifier: Apache-2.0
"""Models and photographs -> the files that the `.lat` coder needs: a command for developers.

python -m latentwire_train.dev measure MODEL FOLDER [--equal-units]
python -m latentwire_train.dev tables FOLDER TABLES.safetensors --model MODEL [--model MODEL ...]
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from latentwire_codec.images import pixels
from latentwire_codec.images.files import read_image
from latentwire_codec.images.geometry import pad_to_multiple
from latentwire_codec.lat.payload import units_for
from latentwire_codec.lat.quantizer import Steps
from latentwire_codec.lat.tables import Tables
from latentwire_codec.load import load_autoencoder
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_core.errors import CodecError
from latentwire_core.files import write_whole
from latentwire_train.data.folder import scan_images
from latentwire_train.prior_fitting import fit_prior
from latentwire_train.record.export import measure_latents

MULTIPLES = (0.1, 0.2, 0.35, 0.6, 1.0, 1.8, 3.2, 5.0)
"""The steps for fitting the tables, in units of the model."""
NOISE = 0.25
"""Width of the uniform noise for measuring units, in standard deviations."""


def prior_for(models: Sequence[Autoencoder], paths: Sequence[Path]) -> Tables:
    """Fit a prior to the latents of all models of all images, in the models' units; unreadable images are left out."""
    samples = []
    for model in models:
        for image in _images(paths, model):
            latents = model.encode(image).mode()[0].numpy()
            units = np.array(units_for(latents, model.spec.latent_units))
            samples += [(latents, Steps.nearest(units * multiple)) for multiple in MULTIPLES]
    return fit_prior(samples)


def scaling_factor_of(model: Autoencoder, paths: Sequence[Path]) -> float:
    """Measure the factor that gives samples of the posteriors of images a variance of 1."""

    def encode(image: torch.Tensor) -> torch.Tensor:
        posterior = model.encode(image)
        without = torch.full_like(posterior.mean, -math.inf)
        return torch.cat((posterior.mean, without if posterior.logvar is None else posterior.logvar), dim=1)

    return float(f"{measure_latents(encode, _images(paths, model)).scaling_factor:.5g}")


def equal_units_of(model: Autoencoder, paths: Sequence[Path]) -> tuple[float, ...]:
    """Measure one step for all channels: the geometric mean of their standard deviations.

    A model that was trained for the rate had one step for all channels.
    """
    latents = [model.encode(image).mode().flatten(2)[0] for image in _images(paths, model)]
    mean = float(torch.cat(latents, dim=1).std(dim=1).log().mean().exp())
    return (float(f"{mean:.4g}"),) * model.spec.latent_channels


def units_of(model: Autoencoder, paths: Sequence[Path]) -> tuple[float, ...]:
    """Measure the steps at which rounding errors of every channel cost the same in the decoded images.

    Noise is added to one channel after the other. The geometric mean of the units is that of the channels' standard
    deviations.
    """
    generator = torch.Generator().manual_seed(0)
    latents = [model.encode(image).mode() for image in _images(paths, model)]
    deviations = torch.cat([each.flatten(2)[0] for each in latents], dim=1).std(dim=1)
    costs = np.zeros(len(deviations))
    for each in latents:
        decoded = model.decode(each)
        for channel, deviation in enumerate(deviations):
            noisy = each.clone()
            width = NOISE * float(deviation)
            noisy[:, channel] += width * (torch.rand(noisy[:, channel].shape, generator=generator) - 0.5)
            costs[channel] += float((model.decode(noisy) - decoded).square().mean()) / width**2
    units = 1 / np.sqrt(costs)
    units *= np.exp(np.log(deviations.numpy()).mean() - np.log(units).mean())
    return tuple(float(f"{unit:.4g}") for unit in units)


def _images(paths: Sequence[Path], model: Autoencoder) -> Iterator[torch.Tensor]:
    for path in paths:
        try:
            image: npt.NDArray[np.uint8] = read_image(path.read_bytes())
        except (CodecError, OSError):
            continue
        padded = pad_to_multiple(image, model.spec.downsample_factor)
        yield pixels.to_float(torch.from_numpy(padded).unsqueeze(0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 0 for success, 1 for a refusal."""
    parser = argparse.ArgumentParser(prog="python -m latentwire_train.dev", description="Fit what `.lat` needs.")
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser(
        "measure", help="measure a model's latent_units and scaling_factor; write both to config.json and print them"
    )
    measure.add_argument("model", type=Path, help="the model's folder")
    measure.add_argument("folder", type=Path, help="photographs")
    measure.add_argument("--images", type=int, default=24, help="number of images, spread over the folder (default 24)")
    measure.add_argument(
        "--equal-units", action="store_true", help="one unit for all channels, as a model trained for the rate had"
    )
    tables = commands.add_parser("tables", help="fit the common tables that code latents to those of some models")
    tables.add_argument("folder", type=Path, help="photographs")
    tables.add_argument("out_file", type=Path)
    tables.add_argument("--model", action="append", required=True, help="a bundled name or a folder; repeatable")
    tables.add_argument("--images", type=int, default=96, help="number of images, spread over the folder (default 96)")
    options = parser.parse_args(arguments)
    try:
        paths = _some(options.folder, options.images)
        if options.command == "measure":
            print(json.dumps(_measure(options.model, paths, options.equal_units)))
        else:
            models = [load_autoencoder(model, dtype="float32") for model in options.model]
            write_whole(options.out_file, prior_for(models, paths).to_bytes())
    except (CodecError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _some(folder: Path, count: int) -> list[Path]:
    """Return the paths of `count` images of a folder, evenly spaced; all paths where there are fewer."""
    if count < 1:
        raise ValueError(f"--images is {count}; it must be >= 1")
    source = scan_images(folder)
    step = -(-len(source) // count)
    return [Path(item.origin.location) for item in source.items[::step]]


def _measure(folder: Path, paths: Sequence[Path], equal: bool) -> dict[str, Any]:
    model = load_autoencoder(str(folder), dtype="float32")
    measured = {
        "scaling_factor": scaling_factor_of(model, paths),
        "shift_factor": None,
        "latent_units": equal_units_of(model, paths) if equal else units_of(model, paths),
    }
    file = folder / "config.json"
    write_whole(file, (json.dumps(json.loads(file.read_text()) | measured, indent=2) + "\n").encode())
    return measured


if __name__ == "__main__":
    sys.exit(main())
