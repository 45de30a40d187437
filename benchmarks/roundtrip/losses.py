# SPDX-License-Identifier: Apache-2.0
"""An image and VAEs -> its row: bytes of its latents, and scores of what whole and coarser latents decode to."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report.measuring import Measure, image_files, read
from benchmarks.report.model import Model, Source
from benchmarks.report.rows import Row
from benchmarks.report.scores import CAP_DB, Scorer, Wanted
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.lat.payload import decompress_latents
from latentwire_codec.metrics import scores
from latentwire_core.errors import CodecError

QUALITY = "cache"
FLOAT16_BYTES = 2
SPREAD_IMAGES = 100
"""Images at most whose latents give the standard deviations."""


@dataclass(frozen=True)
class Rounding:
    """Coarser latents: multiples of a step in standard deviations of each channel.

    Attributes:
        steps: the steps; empty: only whole latents are measured.
        deviations: the standard deviation of each channel, by the name of the model.
    """

    steps: Sequence[float] = ()
    deviations: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is measured of each image; it can be pickled.

    Attributes:
        sources: VAEs.
        wanted: metrics.
        rounding: coarser latents.
        bfloat16: whether each VAE is measured in bfloat16 too.
    """

    sources: Sequence[Source]
    wanted: Wanted
    rounding: Rounding = field(default_factory=Rounding)
    bfloat16: bool = False

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
        found[half.name]["bfloat16_psnr_db"] = _psnr(framed, half.decode(half.encode(framed), framed))
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
        rounded[f"{step:g}"] = _psnr(framed, model.decode(np.rint(latents / multiples) * multiples, framed))
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
        "psnr_db": _psnr(framed, decoded),
        "lat_psnr_db": _psnr(framed, model.decode(decompress_latents(payload)[0], framed)),
        "rounded_psnr_db": rounded,
    }


def _psnr(image: Pixels, decoded: Pixels) -> float:
    return min(CAP_DB, scores.psnr(image, decoded))
