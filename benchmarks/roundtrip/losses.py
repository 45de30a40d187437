# SPDX-License-Identifier: Apache-2.0
"""An image and VAEs -> its row: bytes of its latents, and scores of what they decode to; VAEs -> their seconds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report.model import Model, Source
from benchmarks.report.pictures import photograph
from benchmarks.report.rows import Measure, Row, image_files, read
from benchmarks.report.scores import Scorer, Wanted, psnr
from benchmarks.report.timing import Spread, speed_up, take_turns, warmed_up
from latentwire_codec.images import pixels
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.lat.payload import decompress_latents
from latentwire_codec.metrics import scores
from latentwire_core.errors import CodecError

QUALITY = "cache"
FLOAT16_BYTES = 2
SPREAD_IMAGES = 100  # images at most whose latents give the standard deviations
SIDE, ROUNDS, LIMIT_S = 512, 7, 300.0
OPERATIONS = ("encode", "decode")
Times = dict[str, dict[str, list[float]]]  # seconds of each round, by the name of the model and the operation


@dataclass(frozen=True)
class Rounding:
    """Coarser latents: multiples of a step in standard deviations of each channel."""

    steps: Sequence[float] = ()  # the steps; empty: only whole latents are measured
    # the standard deviation of each channel, by the name of the model
    deviations: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is measured of each image; it can be pickled."""

    sources: Sequence[Source]  # VAEs
    wanted: Wanted
    rounding: Rounding = field(default_factory=Rounding)  # coarser latents
    bfloat16: bool = False  # whether each VAE is measured in bfloat16 too

    def prepare(self) -> Measure:
        """Load models and metrics."""
        models = [source.load() for source in self.sources]
        halves = [replace(source, dtype="bfloat16").load() for source in self.sources] if self.bfloat16 else []
        return partial(measure, models, self.wanted.scorer(), self.rounding, halves)


def deviations(model: Model, folder: Path) -> list[float]:
    """Map a folder of images to the standard deviation of each channel of their latents, with four digits.

    At most SPREAD_IMAGES files are read, evenly spaced; a file that cannot be read is left out.

    Raises:
        FileNotFoundError: there is no image.
        ValueError: too few latents, or equal ones: they have no standard deviation.
    """
    files, latents = image_files(folder), []
    for file in files[:: -(-len(files) // SPREAD_IMAGES)]:
        with suppress(CodecError, OSError):
            encoded = model.encode(model.frame(read(file.path)))
            latents.append(encoded.reshape(len(encoded), -1))
    spread = np.concatenate(latents, axis=1).std(axis=1) if latents else np.zeros(1)
    if not (spread > 0).all():
        raise ValueError(f"the latents of {folder} by {model.name} do not vary; name another folder with --spread-of")
    # Rows depend on these numbers: their last digits must not keep a run from going on.
    return [float(f"{each:.4g}") for each in spread]


def measure(models: Sequence[Model], scorer: Scorer, rounding: Rounding, halves: Iterable[Model], image: Pixels) -> Row:
    """Map an image to its row."""
    found = {model.name: measure_model(model, scorer, image, rounding) for model in models}
    for half in halves:
        framed = half.frame(image)
        found[half.name]["bfloat16_psnr_db"] = psnr(framed, half.decode(half.encode(framed), framed))
    return {"width": image.shape[1], "height": image.shape[0], "models": found}


def measure_model(model: Model, scorer: Scorer, image: Pixels, rounding: Rounding) -> dict[str, Any]:
    """Map an image to what one VAE loses: scores with whole latents; PSNR with those of `.lat` and rounded ones."""
    framed = model.frame(image)
    latents = model.encode(framed)
    payload = model.compress(framed, latents, QUALITY)
    height, width = framed.shape[:2]
    rounded = {}
    for step in rounding.steps:
        multiples = step * np.array(rounding.deviations[model.name], np.float32)[:, None, None]
        rounded[f"{step:g}"] = psnr(framed, model.decode(np.rint(latents / multiples) * multiples, framed))
    decoded = model.decode(latents, framed)
    return {
        "width": width,
        "height": height,
        "raw_bytes": framed.size,
        "float16_bytes": FLOAT16_BYTES * latents.size,
        "lat_bytes": len(payload),
        "bits_per_pixel": scores.bits_per_pixel(FLOAT16_BYTES * latents.size, width, height),
        "lat_bits_per_pixel": scores.bits_per_pixel(len(payload), width, height),
        "scores": scorer(framed, decoded),
        "psnr_db": psnr(framed, decoded),
        "lat_psnr_db": psnr(framed, model.decode(decompress_latents(payload)[0], framed)),
        "rounded_psnr_db": rounded,
    }


def take_times(models: Sequence[Model]) -> Times:
    """Time one image of SIDE pixels a side, or of the only size that a model takes."""
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for model in models:
        image = torch.from_numpy(model.frame(photograph(SIDE, SIDE))).unsqueeze(0)
        batch = pixels.to_float(image)
        latents = model.autoencoder.encode(batch).mode()
        calls[model.name, "encode"] = partial(model.autoencoder.encode, batch)
        calls[model.name, "decode"] = partial(model.autoencoder.decode, latents)
    seconds = {key: warmed_up(call)[1] for key, call in calls.items()}
    samples = take_turns(calls, seconds, ROUNDS, LIMIT_S)
    return {model.name: {each: samples[model.name, each] for each in OPERATIONS} for model in models}


def shown(times: Times, model: str, operation: str) -> str:
    """Return the median in ms, and the median over rounds of its ratio to the first model."""
    ours, first = times[model][operation], next(iter(times.values()))[operation]
    return f"{1000 * Spread.of(ours).median:.0f} ({speed_up(ours, first).median:.2f})"
