# SPDX-License-Identifier: Apache-2.0
"""Rows -> bytes and loss of each form, by VAE: tables and plots of the report."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.latent_cache.caching import lat_name, over_images
from benchmarks.latent_cache.forms import FLOAT16, FLOAT32, FORMS
from benchmarks.report.page import Plots, Table, table
from benchmarks.report.plots import Line, line_plot
from benchmarks.report.rows import Row
from latentwire_core.quality import LOSSLESS

PIXELS_512 = 512 * 512
KILO = 1000
PLOTTED_LOSS_DB = 3.0
TICKS = (1, 2, 4, 8, 16, 32, 64)
LAT = ".lat"


@dataclass(frozen=True)
class Cost:
    """Bytes and loss of a form, over a folder."""

    bytes_512: float  # mean over images of bytes per 512x512 pixels
    bits_per_latent: float  # mean over images
    ratio_to_float16: float  # bytes of all float16 latents over bytes of all latents in this form
    psnr_db: float  # mean over images, decoded
    lost_db: float  # mean over images of the PSNR of float32 latents less the PSNR of this form
    worst_lost_db: float  # the largest of these differences


def costs(rows: Sequence[Row], model: str) -> dict[str, Cost]:
    """Map rows to the cost of each form of a model's latents."""
    found = [row["models"][model] for row in rows]
    return {form: _cost(found, form) for form in found[0]["forms"]}


def _cost(found: Sequence[dict[str, Any]], form: str) -> Cost:
    sizes = [each["forms"][form]["bytes"] for each in found]
    lost = [each["forms"][FLOAT32]["psnr_db"] - each["forms"][form]["psnr_db"] for each in found]
    return Cost(
        bytes_512=fmean(
            size * PIXELS_512 / (each["width"] * each["height"]) for size, each in zip(sizes, found, strict=True)
        ),
        bits_per_latent=fmean(8 * size / _latents(each) for size, each in zip(sizes, found, strict=True)),
        ratio_to_float16=sum(each["forms"][FLOAT16]["bytes"] for each in found) / sum(sizes),
        psnr_db=fmean(each["forms"][form]["psnr_db"] for each in found),
        lost_db=fmean(lost),
        worst_lost_db=max(lost),
    )


def _latents(measured: dict[str, Any]) -> int:
    channels, height, width = measured["shape"]
    return int(channels * height * width)


@dataclass(frozen=True)
class Coding:
    """Bits per latent of the same integers, coded in several ways, over a folder."""

    lat: float  # the whole file
    coded: float  # the file without its header and checksums
    zstd: float  # zstd 19 over the integers, each channel as int8, or wider where one is larger
    own_tables: float  # an ideal coder with a table for each channel of each image; tables cost nothing
    folder_tables: float  # an ideal coder with a table for each channel of the whole folder; tables cost nothing
    rounded_own_tables: float  # `own_tables` over the nearest integers, without the choice by rate and distortion
    gaussian: float  # an ideal coder of Gaussian latents with each channel's variance over the folder, nearest integers


def coding(rows: Sequence[Row], model: str, quality: str) -> Coding:
    """Map rows to the bits per latent at a quality."""
    found = [row["models"][model] for row in rows]
    latents = sum(map(_latents, found))
    coded = [each["coded"][quality] for each in found]
    channels = over_images([each["channels"] for each in coded])

    def total(name: str) -> float:
        return sum(float(each[name]) for each in coded) / latents

    return Coding(
        lat=8 * total("lat_bytes"),
        coded=8 * total("coded_bytes"),
        zstd=8 * total("zstd_bytes"),
        own_tables=total("own_tables_bits"),
        folder_tables=sum(channel.table_bits for channel in channels) / latents,
        rounded_own_tables=total("rounded_own_tables_bits"),
        gaussian=sum(channel.gaussian_bits for channel in channels) / latents,
    )


def cost_table(model: str, found: dict[str, Cost]) -> Table:
    """Make the table of forms of a model's latents."""

    def number(name: str, form: str, divisor: float = 1) -> Callable[[tuple[str, Cost]], str]:
        return lambda item: f"{getattr(item[1], name) / divisor:{form}}"

    columns: dict[str, Callable[[tuple[str, Cost]], str]] = {
        "form": lambda item: item[0],
        "kB per 512x512": number("bytes_512", ".2f", KILO),
        "lost, dB": number("lost_db", "z.3f"),
        "times below float16": number("ratio_to_float16", ".2f"),
        "bits per latent": number("bits_per_latent", ".2f"),
        "PSNR, dB": number("psnr_db", ".2f"),
        "lost, worst image, dB": number("worst_lost_db", "z.3f"),
    }
    note = (
        "Means over images; a kB is 1000 bytes, per 512x512 pixels. Lost: the decoded PSNR of float32 latents less "
        "that of the form. In .lat every byte counts; 'What is counted' names the counted bytes of the other forms. "
        "Times below float16: over all bytes of the folder."
    )
    return table(f"Latents of {model}", found.items(), columns, note)


def coding_table(model: str, found: dict[str, Coding]) -> Table:
    """Make the table of ways to code the same integers."""
    names = {
        ".lat, whole file": "lat",
        ".lat, without header and checksums": "coded",
        "the same integers as int8, zstd 19": "zstd",
        "ideal table for each channel of each image": "own_tables",
        "ideal table for each channel of the folder": "folder_tables",
        "nearest integers, ideal table for each channel of each image": "rounded_own_tables",
        "ideal Gaussian at the same steps, nearest integers": "gaussian",
    }
    rows = [[label, *(f"{getattr(each, name):.3f}" for each in found.values())] for label, name in names.items()]
    rows.append(["zstd 19 over .lat", *(f"{each.zstd / each.lat:.2f}" for each in found.values())])
    note = (
        "Over all latents of the folder, at equal steps. .lat chooses between the two nearest integers by rate and "
        "distortion; the rows of nearest integers do not choose, and lose less. Ideal tables cost nothing here; the "
        "frame of zstd holds no steps. The Gaussian has the mean and variance of each channel over the folder."
    )
    return Table(f"Bits per latent, {model}", ["coder", *found], rows, note)


def plots(found: dict[str, dict[str, Cost]]) -> Plots:
    """Plot the loss of every model over the bytes: lines for `.lat`, a point for each other form.

    `.lat` has one line for latents as they were encoded, and one for each refinement.
    """
    single = [lat_name(LOSSLESS), *(form.name for form in FORMS)]
    graded = {form: _way(form) for forms in found.values() for form in forms if form not in single}
    labels = list(dict.fromkeys([LAT, *single, *graded.values()]))
    drawn = []
    for model, forms in found.items():
        lines = []
        for colour, label in enumerate(labels):
            costs = [cost for form, cost in forms.items() if graded.get(form, form) == label]
            lines.append(_line(label, sorted(costs, key=lambda cost: cost.bytes_512), colour))
        drawn.append(line_plot(lines, "kB per 512x512", f"{model}: decoded PSNR lost, dB", ticks=TICKS))
    return Plots("Loss over bytes", drawn, f"Forms that lose more than {PLOTTED_LOSS_DB:g} dB are left out.")


def _way(form: str) -> str:
    """Map the name of a `.lat` form to the name of its line."""
    _, plus, refinement = form.partition("+")
    return f"{LAT} {plus}{refinement}" if plus else LAT


def _line(label: str, forms: Iterable[Cost], colour: int) -> Line:
    shown = [cost for cost in forms if cost.lost_db <= PLOTTED_LOSS_DB]
    return Line(label, [cost.bytes_512 / KILO for cost in shown], [cost.lost_db for cost in shown], colour)


def counted(qualities: Sequence[str]) -> list[str]:
    """List which bytes of each form count."""
    names = ", ".join(lat_name(quality) for quality in (LOSSLESS, *qualities))
    refined = "; +NxW: latents fitted to their image by N iterations, with W times the weight of bits"
    explained = refined if any("+" in quality for quality in qualities) else ""
    return [*(f"{form.name}: {form.counted}" for form in FORMS), f"{names}: the whole file{explained}"]
