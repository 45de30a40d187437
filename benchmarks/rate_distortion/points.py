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
from latentwire_codec import metrics
from latentwire_codec.geometry import Pixels


@dataclass(frozen=True)
class Plan:
    """What is measured of each image; it can be pickled.

    Attributes:
        sources: VAEs.
        wanted: metrics.
        files: names of the formats that are measured beside them.
    """

    sources: Sequence[Source]
    wanted: Wanted
    files: Sequence[str] = tuple(codec.name for codec in FILE_CODECS)

    def codecs(self, models: Sequence[Model]) -> list[Codec]:
        """Return all codecs, in the order of tables."""
        return [*map(LatentCodec, models), *(codec for codec in FILE_CODECS if codec.name in self.files)]

    def prepare(self) -> Measure:
        """Load models and metrics."""
        models = [source.load() for source in self.sources]
        return partial(measure, self.codecs(models), models, self.wanted.scorer())


def measure(codecs: Sequence[Codec], models: Sequence[Model], scorer: Scorer, image: Pixels) -> Row:
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
                    "bits_per_pixel": metrics.bits_per_pixel(len(payload), width, height),
                    "scores": scorer(image, codec.decode(payload, image)),
                }
            )
    unquantized = {LatentCodec(model).name: scorer(image, model.decode(model.encode(image), image)) for model in models}
    return {"width": width, "height": height, "points": points, "unquantized": unquantized}
