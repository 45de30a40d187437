# SPDX-License-Identifier: Apache-2.0
"""Images <-> files of JPEG, WebP, AVIF, JPEG XL and JPEG 2000, and `.lat` files of a VAE; an image -> its row."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pillow_jxl  # noqa: F401  # tells Pillow of JPEG XL
from PIL import Image

from benchmarks.report.model import Model, Source
from benchmarks.report.rows import Measure, Row
from benchmarks.report.scores import Scorer, Wanted
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.lat.payload import decompress_latents
from latentwire_codec.metrics.scores import bits_per_pixel
from latentwire_core.quality import STEPS as QUALITIES

STEPS = (
    0.1,
    0.16,
    0.35,
    1.1,
    2.2,
    3.2,
    4.6,
)  # of latentwire, in units: between and beyond its named qualities


@dataclass(frozen=True)
class FileCodec:
    """A format that Pillow writes."""

    name: str  # its name in tables
    counted: str  # which bytes count, and how it is set
    plugin: str  # Pillow's name of the format
    settings: tuple[str, ...]  # the settings that are measured, from the smallest files to the largest
    options: Callable[[str, Pixels], Mapping[str, Any]]  # maps a setting and an image to the options of `Image.save`

    def encode(self, image: Pixels, settings: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield each setting with the file that it makes of an image."""
        for setting in settings:
            file = io.BytesIO()
            Image.fromarray(image).save(file, self.plugin, **self.options(setting, image))
            yield setting, file.getvalue()

    def decode(self, payload: bytes, image: Pixels) -> Pixels:
        """Map a file to its image."""
        with Image.open(io.BytesIO(payload), formats=[self.plugin]) as opened:
            return np.asarray(opened.convert("RGB"))


@dataclass(frozen=True)
class LatentCodec:
    """`.lat` files of a VAE, byte for byte those of `latentwire_codec.compress`."""

    model: Model
    refinement: LatentOptimisation | None = None  # how latents are fitted to their image; None: they stay as encoded

    @property
    def name(self) -> str:
        """Its name in tables."""
        refined = "" if self.refinement is None else f", refined {self.refinement.iterations}"
        return f"latentwire {self.model.name}{refined}"

    @property
    def settings(self) -> tuple[str, ...]:
        """Steps in units: the named qualities; without refinement, which is slow, other steps too."""
        others = STEPS if self.refinement is None else ()
        return tuple(f"{step:g}" for step in sorted({*others, *QUALITIES.values()}))

    @property
    def counted(self) -> str:
        """Which bytes count, and how it is set."""
        names = ", ".join(f"{name} = {step:g}" for name, step in QUALITIES.items())
        way = self.refinement
        fitted = "" if way is None else f"; latents fitted to each image by {way.iterations} iterations"
        weights = "not the model's weights, which both sides have"
        return f"the whole .lat file, at steps in units ({names}){fitted}; {weights}"

    def encode(self, image: Pixels, settings: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield each setting with the file that it makes of an image; the model encodes the image once."""
        latents = self.model.encode(image)
        for setting in settings:
            yield setting, self.model.compress(image, latents, float(setting), self.refinement)

    def decode(self, payload: bytes, image: Pixels) -> Pixels:
        """Map a `.lat` file to its image."""
        return self.model.decode(decompress_latents(payload)[0], image)


def _jpeg_2000(ratio: str, image: Pixels) -> Mapping[str, Any]:
    return {
        "quality_mode": "rates",
        "quality_layers": [float(ratio)],
        "irreversible": True,
        "no_jp2": True,
        # Without the colour transform, Pillow's default, the PSNR is 2 dB lower.
        "mct": 1,
        # Each resolution halves the image; more than fit are refused.
        "num_resolutions": min(6, min(image.shape[:2]).bit_length()),
    }


def _qualities(texts: str, **options: Any) -> tuple[tuple[str, ...], Callable[[str, Pixels], Mapping[str, Any]]]:
    return tuple(texts.split()), lambda quality, _: {"quality": int(quality), **options}


FILE_CODECS = (
    FileCodec(
        "JPEG", "the whole file: 4:2:0, progressive, optimised tables, quality 1 to 60",
        "JPEG", *_qualities("1 4 8 14 24 42 60", optimize=True, progressive=True),
    ),
    FileCodec(
        "WebP", "the whole file: method 6, quality 0 to 84",
        "WEBP", *_qualities("0 2 5 12 25 45 70 84", method=6),
    ),
    FileCodec(
        "AVIF", "the whole file: 4:2:0, speed 4, quality 1 to 58",
        "AVIF", *_qualities("1 8 16 24 34 46 58", speed=4, max_threads=1),
    ),
    FileCodec(
        "JPEG XL", "the whole file, without container: effort 7, quality 1 to 74",
        "JXL", *_qualities("1 6 14 24 40 60 74", effort=7, num_threads=1),
    ),
    FileCodec(
        "JPEG 2000",
        "the whole codestream, without the JP2 boxes: irreversible, colour transform, one layer, ratio 550 to 24",
        "JPEG2000", ("550", "330", "200", "120", "75", "45", "32", "24"), _jpeg_2000,
    ),
)  # fmt: skip
Codec = FileCodec | LatentCodec


@dataclass(frozen=True)
class Plan:
    """What is measured of each image; it can be pickled."""

    sources: Sequence[Source]  # VAEs
    wanted: Wanted
    files: Sequence[str] = tuple(codec.name for codec in FILE_CODECS)  # formats that are measured beside the VAEs
    refinement: LatentOptimisation | None = None  # how latents are fitted, measured beside plain latents

    def latent_codecs(self, models: Sequence[Model]) -> list[LatentCodec]:
        """Return the codecs of the VAEs."""
        return [LatentCodec(model, way) for model in models for way in dict.fromkeys([None, self.refinement])]

    def codecs(self, models: Sequence[Model]) -> list[Codec]:
        """Return all codecs, in the order of tables."""
        return [*self.latent_codecs(models), *(codec for codec in FILE_CODECS if codec.name in self.files)]

    def prepare(self) -> Measure:
        """Load models and metrics."""
        models = [source.load() for source in self.sources]
        return partial(measure, self.codecs(models), self.wanted.scorer())


def measure(codecs: Sequence[Codec], scorer: Scorer, image: Pixels) -> Row:
    """Map an image to its row: bytes and scores of what each codec makes of it at each setting."""
    height, width = image.shape[:2]
    points = [
        {
            "codec": codec.name,
            "setting": setting,
            "bytes": len(payload),
            "bits_per_pixel": bits_per_pixel(len(payload), width, height),
            "scores": scorer(image, codec.decode(payload, image)),
        }
        for codec in codecs
        for setting, payload in codec.encode(image, codec.settings)
    ]
    unquantized = {
        codec.name: scorer(image, codec.model.decode(codec.model.encode(image), image))
        for codec in codecs
        if isinstance(codec, LatentCodec) and codec.refinement is None
    }
    return {"width": width, "height": height, "points": points, "unquantized": unquantized}
