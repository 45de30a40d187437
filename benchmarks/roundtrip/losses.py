# SPDX-License-Identifier: Apache-2.0
"""An image and VAEs -> its row: bytes of its latents and scores of what they decode to."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.report.measuring import Measure
from benchmarks.report.model import Model, Source
from benchmarks.report.rows import Row
from benchmarks.report.scores import CAP_DB, Scorer, Wanted
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.lat.payload import decompress_latents
from latentwire_codec.metrics import scores

QUALITY = "cache"
FLOAT16_BYTES = 2


@dataclass(frozen=True)
class Plan:
    """What is measured of each image; it can be pickled.

    Attributes:
        sources: VAEs.
        wanted: metrics.
    """

    sources: Sequence[Source]
    wanted: Wanted

    def prepare(self) -> Measure:
        """Load models and metrics."""
        return partial(measure, [source.load() for source in self.sources], self.wanted.scorer())


def measure(models: Sequence[Model], scorer: Scorer, image: Pixels) -> Row:
    """Map an image to its row."""
    return {
        "width": image.shape[1],
        "height": image.shape[0],
        "models": {model.name: measure_model(model, scorer, image) for model in models},
    }


def measure_model(model: Model, scorer: Scorer, image: Pixels) -> dict[str, Any]:
    """Map an image to what is measured of one VAE: scores with whole latents, PSNR also with those of a `.lat`."""
    framed = model.frame(image)
    latents = model.encode(framed)
    payload = model.compress(framed, latents, QUALITY)
    restored = model.decode(decompress_latents(payload)[0], framed)
    height, width = framed.shape[:2]
    return {
        "width": width,
        "height": height,
        "raw_bytes": framed.size,
        "float16_bytes": FLOAT16_BYTES * latents.size,
        "lat_bytes": len(payload),
        "bits_per_pixel": scores.bits_per_pixel(FLOAT16_BYTES * latents.size, width, height),
        "lat_bits_per_pixel": scores.bits_per_pixel(len(payload), width, height),
        "scores": scorer(framed, model.decode(latents, framed)),
        "lat_psnr_db": min(CAP_DB, scores.psnr(framed, restored)),
    }
