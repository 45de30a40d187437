# SPDX-License-Identifier: Apache-2.0
"""An image and VAEs -> its row: bytes and decoded PSNR of its latents in every form, and bytes of other coders."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.latent_cache.entropies import Integers, describe, own_tables_bits
from benchmarks.latent_cache.forms import FORMS, Packed, zstd
from benchmarks.report.measuring import Measure
from benchmarks.report.model import Latents, Model, Source
from benchmarks.report.rows import Row
from benchmarks.report.scores import CAP_DB
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.lat import coder
from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.lat.payload import decompress_latents
from latentwire_codec.lat.quantizer import Steps, round_to
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import common_tables
from latentwire_codec.metrics import scores
from latentwire_core import container
from latentwire_core.errors import TensorError
from latentwire_core.quality import LOSSLESS


@dataclass(frozen=True)
class Quality:
    """The settings of a `.lat` file.

    Attributes:
        fineness: a name, or steps in units.
        refinement: how latents are fitted to their image; None: they stay as encoded.
    """

    fineness: str | float
    refinement: LatentOptimisation | None

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
    """What is measured of each image; it can be pickled.

    Attributes:
        sources: VAEs.
        qualities: qualities of `.lat`, as texts that `Quality.parse` reads.
    """

    sources: Sequence[Source]
    qualities: Sequence[str]

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
    known: list[tuple[Latents, float]] = []

    def psnr(restored: Latents) -> float:
        # Forms that pack the same numbers in another way decode to the same image.
        for seen, score in known:
            if np.array_equal(seen, restored):
                return score
        known.append((restored, min(CAP_DB, scores.psnr(framed, model.decode(restored, framed)))))
        return known[-1][1]

    def kept(packed: Packed) -> dict[str, Any]:
        return {"bytes": packed.num_bytes, "psnr_db": psnr(packed.latents)}

    forms = {form.name: kept(form.pack(latents)) for form in FORMS}
    whole = model.compress(framed, latents.astype(np.float16), LOSSLESS)
    forms[lat_name(LOSSLESS)] = kept(Packed(len(whole), decompress_latents(whole)[0].astype(np.float32)))
    coded = {}
    for quality in qualities:
        wanted = Quality.parse(quality)
        payload = model.compress(framed, latents, wanted.fineness, wanted.refinement)
        restored = decompress_latents(payload)[0]
        forms[lat_name(quality)] = kept(Packed(len(payload), restored))
        # Fitted latents are multiples of the steps, so decompression returns them as they were.
        coded[quality] = compare(payload, latents if wanted.refinement is None else restored)
    return {
        "shape": list(latents.shape),
        "width": framed.shape[1],
        "height": framed.shape[0],
        "forms": forms,
        "coded": coded,
    }


def compare(payload: bytes, latents: Latents) -> dict[str, Any]:
    """Map a `.lat` payload and its latents to the bytes and bits of other coders at the same steps."""
    header, sections = container.unpack(payload)
    integers, steps = integers_of(header, sections)
    # int8 where the integers fit: the obvious way to store them.
    fits = np.abs(integers).max() < 128
    return {
        "lat_bytes": len(payload),
        "coded_bytes": sum(len(getattr(sections, name)) for name in container.SECTION_NAMES),
        "zstd_bytes": zstd(integers.astype(np.int8 if fits else np.int32).tobytes()),
        "own_tables_bits": own_tables_bits(integers),
        "rounded_own_tables_bits": own_tables_bits(round_to(latents, steps)),
        "channels": describe(integers, latents / steps.sizes[:, None, None]),
    }


def integers_of(header: container.Header, sections: container.Sections) -> tuple[Integers, Steps]:
    """Map a parsed `.lat` payload to its integers (C,h,w) and their steps."""
    prior = common_tables().context_model(SideInformation.from_bytes(sections.weights, header.shape[0]))
    coded = coder.Coded(sections.symbols, sections.escapes, sections.low_bits)
    return coder.decode(coded, header.shape, prior)[0], Steps(header.numerators, header.exponent)


def lat_name(quality: str) -> str:
    """Return the name of `.lat` as a form."""
    return f".lat {quality}"
