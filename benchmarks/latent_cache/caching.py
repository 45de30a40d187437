# SPDX-License-Identifier: Apache-2.0
"""An image and VAEs -> its row: bytes and decoded PSNR of its latents in every form, and bits of other coders."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.latent_cache.forms import FORMS, zstd
from benchmarks.report.model import Latents, Model, Source
from benchmarks.report.rows import Measure, Row
from benchmarks.report.scores import psnr
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.lat import coder
from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.lat.payload import decompress_latents
from latentwire_codec.lat.quantizer import Steps, round_to
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import common_tables
from latentwire_core import container
from latentwire_core.errors import TensorError
from latentwire_core.quality import LOSSLESS

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
TAIL = 12.0  # standard deviations beyond which the share of a Gaussian is zero in float64


def entropy(counts: npt.ArrayLike) -> float:
    """Map counts of symbols to the bits of all symbols by an ideal coder with exactly these frequencies."""
    found = np.asarray(counts, np.float64)
    return float(found.sum() * stats.entropy(found, base=2))


def gaussian_bits(mean: float, deviation: float) -> float:
    """Map a Gaussian, in steps, to the entropy of its nearest integer, in bits."""
    if deviation <= 0:
        return 0.0
    reach = int(np.ceil(TAIL * deviation)) + 1
    edges = np.arange(-reach, reach + 2) - 0.5 + np.rint(mean)
    return float(stats.entropy(np.diff(stats.norm.cdf(edges, mean, deviation)), base=2))


@dataclass
class ChannelCounts:
    """Counts of each integer in one channel, over any number of images, and the moments of the latents in steps."""

    counts: Counter[int] = field(default_factory=Counter)
    total: int = 0
    sum: float = 0.0
    squares: float = 0.0

    def add(self, kept: dict[str, Any]) -> None:
        """Add one image, as `describe` returned it."""
        self.counts.update(dict(enumerate(kept["counts"], kept["first"])))
        self.total += sum(kept["counts"])
        self.sum += kept["sum"]
        self.squares += kept["squares"]

    @property
    def table_bits(self) -> float:
        """Bits of all integers by an ideal coder with one table."""
        return entropy(list(self.counts.values()))

    @property
    def gaussian_bits(self) -> float:
        """Bits of as many rounded draws from a Gaussian with these moments."""
        mean = self.sum / self.total
        variance = max(self.squares / self.total - mean * mean, 0.0)
        return self.total * gaussian_bits(mean, float(np.sqrt(variance)))


def describe(integers: Integers, in_steps: Floats) -> list[dict[str, Any]]:
    """Map integers and latents in steps, both (C,h,w), to the counts and moments of each channel."""
    kept = []
    for numbers, real in zip(integers, in_steps, strict=True):
        first = int(numbers.min())
        counts = np.bincount((numbers - first).ravel())
        moments = {"sum": float(real.sum()), "squares": float((real * real).sum())}
        kept.append({"first": first, "counts": counts.tolist(), **moments})
    return kept


def own_tables_bits(integers: Integers) -> float:
    """Map integers (C,h,w) to their bits by an ideal coder with a table a channel; tables cost nothing."""
    return sum(entropy(np.unique(channel, return_counts=True)[1]) for channel in integers)


def over_images(images: Sequence[list[dict[str, Any]]]) -> list[ChannelCounts]:
    """Map what `describe` returned for each image to the counts of each channel over all images."""
    channels = [ChannelCounts() for _ in images[0]]
    for image in images:
        for channel, kept in zip(channels, image, strict=True):
            channel.add(kept)
    return channels


@dataclass(frozen=True)
class Quality:
    """The settings of a `.lat` file."""

    fineness: str | float  # a name, or steps in units
    refinement: LatentOptimisation | None  # how latents are fitted to their image; None: they stay as encoded

    @classmethod
    def parse(cls, text: str) -> "Quality":
        """Map `NAME` or `STEPS`, with `+ITERATIONS` or `+ITERATIONSxWEIGHT` behind it, to a quality.

        Raises:
            TensorError: the text has another form.
        """
        fineness, plus, refinement = text.partition("+")
        iterations, times, weight = refinement.partition("x")
        try:
            fitted = LatentOptimisation(int(iterations), float(weight) if times else 1.0) if plus else None
        except ValueError as error:
            raise TensorError(f"{text!r} is not a quality such as high, 0.25, high+30 or high+30x2") from error
        with suppress(ValueError):
            return cls(float(fineness), fitted)
        return cls(fineness, fitted)


@dataclass(frozen=True)
class Plan:
    """What is measured of each image; it can be pickled."""

    sources: Sequence[Source]  # VAEs
    qualities: Sequence[str]  # qualities of `.lat`, as texts that `Quality.parse` reads

    def prepare(self) -> Measure:
        """Load the models."""
        return partial(measure, [source.load() for source in self.sources], self.qualities)


def measure(models: Sequence[Model], qualities: Sequence[str], image: Pixels) -> Row:
    """Map an image to its row."""
    return {
        "width": image.shape[1],
        "height": image.shape[0],
        "models": {model.name: measure_model(model, qualities, image) for model in models},
    }


def measure_model(model: Model, qualities: Sequence[str], image: Pixels) -> dict[str, Any]:
    """Map an image to the measurements of one VAE."""
    framed = model.frame(image)
    latents = model.encode(framed)
    decoded: dict[bytes, float] = {}

    def kept(num_bytes: int, restored: Latents) -> dict[str, Any]:
        # Forms that pack the same numbers in another way decode to the same image.
        key = restored.tobytes()
        if key not in decoded:
            decoded[key] = psnr(framed, model.decode(restored, framed))
        return {"bytes": num_bytes, "psnr_db": decoded[key]}

    packed = [(form.name, form.pack(latents)) for form in FORMS]
    forms = {name: kept(each.num_bytes, each.latents) for name, each in packed}
    whole = model.compress(framed, latents.astype(np.float16), LOSSLESS)
    forms[lat_name(LOSSLESS)] = kept(len(whole), decompress_latents(whole)[0].astype(np.float32))
    coded = {}
    for quality in qualities:
        wanted = Quality.parse(quality)
        payload = model.compress(framed, latents, wanted.fineness, wanted.refinement)
        restored = decompress_latents(payload)[0]
        forms[lat_name(quality)] = kept(len(payload), restored)
        # Fitted latents are multiples of the steps, so decompression returns them as they were.
        coded[quality] = compare(payload, latents if wanted.refinement is None else restored)
    height, width = framed.shape[:2]
    return {"shape": list(latents.shape), "width": width, "height": height, "forms": forms, "coded": coded}


def compare(payload: bytes, latents: Latents) -> dict[str, Any]:
    """Map a `.lat` payload and its latents to the bytes and bits of other coders at the same steps."""
    header, sections = container.unpack(payload)
    integers, steps = integers_of(header, sections)
    return {
        "lat_bytes": len(payload),
        "coded_bytes": sum(len(getattr(sections, name)) for name in container.SECTION_NAMES),
        # Each channel as int8, or wider where it needs to be: the obvious way to store them.
        "zstd_bytes": zstd(b"".join(channel.astype(narrowest(channel)).tobytes() for channel in integers)),
        "own_tables_bits": own_tables_bits(integers),
        "rounded_own_tables_bits": own_tables_bits(round_to(latents, steps)),
        "channels": describe(integers, latents / steps.sizes[:, None, None]),
    }


def narrowest(integers: Integers) -> np.dtype[Any]:
    """Return the signed integer type with the fewest bytes that holds all integers."""
    return np.min_scalar_type(min(-1, int(integers.min()), ~int(integers.max())))


def integers_of(header: container.Header, sections: container.Sections) -> tuple[Integers, Steps]:
    """Map a parsed `.lat` payload to its integers (C,h,w) and their steps."""
    prior = common_tables().context_model(SideInformation.from_bytes(sections.weights, header.shape[0]))
    coded = coder.Coded(sections.symbols, sections.escapes, sections.low_bits)
    return coder.decode(coded, header.shape, prior)[0], Steps(header.numerators, header.exponent)


def lat_name(quality: str) -> str:
    """Return the name of `.lat` as a form."""
    return f".lat {quality}"
