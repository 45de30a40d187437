# SPDX-License-Identifier: Apache-2.0
"""An image -> its row: bytes and scores of what each codec makes of it at each setting."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.rate_distortion.codecs import FILE_CODECS, Codec, LatentCodec
from benchmarks.report.measuring import Measure
from benchmarks.report.model import Model, Source
from benchmarks.report.rows import Row
from benchmarks.report.scores import Scorer, Wanted
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.metrics import scores


@dataclass(frozen=True)
class Plan:
    """What is measured of each image; it can be pickled.

    Attributes:
        sources: VAEs.
        wanted: metrics.
        files: names of the formats that are measured beside the VAEs.
        refinement: how latents are fitted to their image, measured beside plain latents; None: only plain latents.
    """

    sources: Sequence[Source]
    wanted: Wanted
    files: Sequence[str] = tuple(codec.name for codec in FILE_CODECS)
    refinement: LatentOptimisation | None = None

    def latent_codecs(self, models: Sequence[Model]) -> list[LatentCodec]:
        """Return the codecs of the VAEs."""
        ways = [None] if self.refinement is None else [None, self.refinement]
        return [LatentCodec(model, way) for model in models for way in ways]

    def codecs(self, models: Sequence[Model]) -> list[Codec]:
        """Return all codecs, in the order of tables."""
        return [*self.latent_codecs(models), *(codec for codec in FILE_CODECS if codec.name in self.files)]

    def prepare(self) -> Measure:
        """Load models and metrics."""
        models = [source.load() for source in self.sources]
        return partial(measure, self.codecs(models), self.wanted.scorer())


def measure(codecs: Sequence[Codec], scorer: Scorer, image: Pixels) -> Row:
    """Map an image to its row."""
    height, width = image.shape[:2]
    points = []
    for codec in codecs:
        for setting, payload in codec.encode(image, codec.settings):
            points.append(
                {
                    "codec": codec.name,
                    "setting": setting,
                    "bytes": len(payload),
                    "bits_per_pixel": scores.bits_per_pixel(len(payload), width, height),
                    "scores": scorer(image, codec.decode(payload, image)),
                }
            )
    unquantized = {
        codec.name: scorer(image, codec.model.decode(codec.model.encode(image), image))
        for codec in codecs
        if isinstance(codec, LatentCodec) and codec.refinement is None
    }
    return {"width": width, "height": height, "points": points, "unquantized": unquantized}
