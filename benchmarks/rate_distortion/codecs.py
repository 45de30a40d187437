# SPDX-License-Identifier: Apache-2.0
"""Images <-> files of JPEG, WebP, AVIF, JPEG XL and JPEG 2000 by Pillow, and `.lat` files of a VAE, at settings."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pillow_jxl  # noqa: F401  # tells Pillow of JPEG XL
from PIL import Image

from benchmarks.report.model import Model
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.lat.payload import decompress_latents
from latentwire_core.quality import STEPS as QUALITIES

STEPS = (0.1, 0.16, 0.35, 1.1, 2.2)
"""Steps of latentwire in units, between and beyond those of its named qualities."""


class Codec(Protocol):
    """A way to turn images into files, with settings from the smallest files to the largest."""

    @property
    def name(self) -> str:
        """Its name in tables."""

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that are measured."""

    @property
    def counted(self) -> str:
        """Which bytes count, and how it is set."""

    def encode(self, image: Pixels, settings: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield each setting with the file that it makes of an image."""

    def decode(self, payload: bytes, image: Pixels) -> Pixels:
        """Map a file of this codec to an image of the size of `image`."""


@dataclass(frozen=True)
class FileCodec:
    """A format that Pillow writes.

    Attributes:
        name: its name in tables.
        plugin: Pillow's name of the format.
        settings: the settings that are measured.
        options: maps a setting and an image to the options of `Image.save`.
        counted: see `Codec`.
    """

    name: str
    plugin: str
    settings: tuple[str, ...]
    options: Callable[[str, Pixels], Mapping[str, Any]]
    counted: str

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
    """`.lat` files of a VAE, byte for byte those of `latentwire_codec.compress`.

    Attributes:
        model: the VAE.
        refinement: how latents are fitted to their image; None: they stay as encoded.
    """

    model: Model
    refinement: LatentOptimisation | None = None

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
        fitted = ""
        if self.refinement is not None:
            fitted = f"; latents fitted to each image by {self.refinement.iterations} iterations"
        return (
            f"the whole .lat file, at steps in units ({names}){fitted}; not the model's weights, which both sides have"
        )

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


FILE_CODECS = (
    FileCodec(
        "JPEG",
        "JPEG",
        ("1", "4", "8", "14", "24", "42"),
        lambda quality, _: {"quality": int(quality), "optimize": True, "progressive": True},
        "the whole file: 4:2:0, progressive, optimised tables, quality 1 to 42",
    ),
    FileCodec(
        "WebP",
        "WEBP",
        ("0", "2", "5", "12", "25", "45", "70"),
        lambda quality, _: {"quality": int(quality), "method": 6},
        "the whole file: method 6, quality 0 to 70",
    ),
    FileCodec(
        "AVIF",
        "AVIF",
        ("1", "8", "16", "24", "34", "46"),
        lambda quality, _: {"quality": int(quality), "speed": 4, "max_threads": 1},
        "the whole file: 4:2:0, speed 4, quality 1 to 46",
    ),
    FileCodec(
        "JPEG XL",
        "JXL",
        ("1", "6", "14", "24", "40", "60"),
        lambda quality, _: {"quality": int(quality), "effort": 7, "num_threads": 1},
        "the whole file, without container: effort 7, quality 1 to 60",
    ),
    FileCodec(
        "JPEG 2000",
        "JPEG2000",
        ("550", "330", "200", "120", "75", "45"),
        _jpeg_2000,
        "the whole codestream, without the JP2 boxes: irreversible, colour transform, one layer, ratio 550 to 45",
    ),
)
