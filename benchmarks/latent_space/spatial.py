# SPDX-License-Identifier: Apache-2.0
"""The bundled f8c4 and photographs -> figures of its spatial latents, and of the loss when they are rounded."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage import data

from benchmarks.demo import PHOTOGRAPHS
from benchmarks.latent_space.models import Model
from benchmarks.latent_space.pictures import BLUE, ORANGE, Pixels, markdown, new_figure, save_figure, show
from latentwire_codec.metrics.scores import psnr
from latentwire_core.latents import Latents
from latentwire_lab.paths import prior_samples
from latentwire_lab.statistics import LatentStatistics, posterior_statistics

# Widths that latents are rounded to, in standard deviations, as the model's own scaling states them.
STEPS = (0.125, 0.25, 0.5, 1.0, 2.0)
SHOWN_STEPS = (0.0, 0.5, 1.0, 2.0)
SHOWN = "chelsea"
DETAIL = (slice(40, 200), slice(110, 270))  # the part of `SHOWN` that is drawn with rounded latents
TEXTURE_SIDE = 256
CONTRAST = 2.5  # standard deviations on each side of the mean, from black to white


@dataclass(frozen=True)
class Rounded:
    """Latents rounded to multiples of a step."""

    step: float  # in standard deviations; 0: not rounded
    psnr: float  # PSNR of the decoded photographs, dB, mean
    values: float  # number of different integers, mean over channels; 0: not rounded


@dataclass(frozen=True, eq=False)
class Spatial:
    """Measurements of f8c4 on photographs."""

    statistics: LatentStatistics
    kl: tuple[float, ...]  # KL divergence of each channel, nats per latent
    rounded: tuple[Rounded, ...]  # results at step 0 and each of `STEPS`
    scale: tuple[float, ...]  # the model's scaling factors


def photographs(count: int) -> list[Pixels]:
    """Return photographs that scikit-image ships, uint8 (H,W,3)."""
    names = [SHOWN, *(name for name in PHOTOGRAPHS if name != SHOWN)]
    return [getattr(data, name)() for name in names[:count]]


def examine(model: Model, images: Sequence[Pixels]) -> Spatial:
    """Measure a spatial model on photographs of any size."""
    posteriors = [model.encode_photograph(image, "moments") for image in images]
    statistics = posterior_statistics(posteriors)
    places = float(np.mean([each.values[0, 0].size for each in posteriors]))
    kl = np.zeros_like(statistics.mean) if statistics.kl is None else statistics.kl / places
    latents = [model.encode_photograph(image, scaled=True) for image in images]
    rounded = []
    for step in (0.0, *STEPS):
        pairs = [quantize(each, step) for each in latents]
        quality = [psnr(image, model.decode(each)[0]) for image, (each, _) in zip(images, pairs, strict=True)]
        multiples = np.concatenate([found[0].reshape(len(found[0]), -1) for _, found in pairs], axis=1)
        values = float(np.mean([len(np.unique(channel)) for channel in multiples])) if step else 0.0
        rounded.append(Rounded(step, float(np.mean(quality)), values))
    return Spatial(statistics, tuple(kl.tolist()), tuple(rounded), model.info.scale)


def quantize(latents: Latents, step: float) -> tuple[Latents, npt.NDArray[np.int64]]:
    """Map scaled latents, whose standard deviation is 1, to latents rounded to multiples of a step, and the multiples.

    At step 0 nothing is rounded, and the multiples are 0.
    """
    if not step:
        return latents, np.zeros(latents.values.shape, np.int64)
    multiples = np.rint(latents.values / np.float32(step))
    return replace(latents, values=multiples * np.float32(step)), multiples.astype(np.int64)


def draw_latents(model: Model, image: Pixels, path: Path) -> None:
    """Draw a part of a photograph, and images decoded from its latents, from its shuffled latents and from N(0, I).

    Below them the latents, channel by channel.
    """
    top, left = (max(0, (side - TEXTURE_SIDE) // 2) for side in image.shape[:2])
    part = np.ascontiguousarray(image[top : top + TEXTURE_SIDE, left : left + TEXTURE_SIDE])
    latents = model.encode_photograph(part)
    channels = latents.values.shape[1]
    places = latents.values.reshape(1, channels, -1)
    shuffled = np.random.default_rng(0).permutation(places, axis=2).reshape(latents.values.shape)
    decoded = {
        "a photograph": part,
        "decoded from its latents": model.decode(latents)[0],
        "from these, places shuffled": model.decode(replace(latents, values=shuffled))[0],
        "from N(0, I)": model.decode(prior_samples(model.info, [0], part.shape[:2]))[0],
    }
    figure = new_figure(4.9)
    panels = figure.subplots(2, max(len(decoded), channels))
    for panel in panels.flat:
        panel.set_axis_off()
    for panel, (title, picture) in zip(panels[0], decoded.items(), strict=False):
        show(panel, picture, title)
    for channel, (panel, values) in enumerate(zip(panels[1], latents.values[0], strict=False)):
        reach = CONTRAST * values.std()
        panel.imshow(values, cmap="gray", vmin=values.mean() - reach, vmax=values.mean() + reach)
        panel.set_title(f"latents, channel {channel}", fontsize=9, loc="left")
    save_figure(figure, path)


def draw_rounded(model: Model, image: Pixels, found: Spatial, path: Path) -> None:
    """Draw PSNR over the step that latents are rounded to, and a part of a photograph at a few steps."""
    figure = new_figure(2.6)
    left, right = figure.subfigures(1, 2, width_ratios=[2, 5], squeeze=False).flat
    axes = left.subplots()
    unrounded, rest = found.rounded[0], found.rounded[1:]
    axes.plot([each.step for each in rest], [each.psnr for each in rest], "o-", ms=4, color=BLUE, label="rounded")
    axes.axhline(unrounded.psnr, color=ORANGE, ls="--", lw=1, label="not rounded")
    axes.set_xscale("log", base=2)
    axes.set_xticks(STEPS, [f"{step:g}" for step in STEPS], fontsize=8)
    axes.set_xlabel("step, standard deviations", fontsize=8)
    axes.set_ylabel("PSNR, dB", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    latents = model.encode_photograph(image, scaled=True)
    for panel, step in zip(right.subplots(1, len(SHOWN_STEPS)), SHOWN_STEPS, strict=True):
        decoded = model.decode(quantize(latents, step)[0])[0]
        show(panel, decoded[DETAIL], f"step {step:g}" if step else "not rounded")
    save_figure(figure, path)


def channel_table(found: Spatial) -> str:
    """Map the figures of each channel to a Markdown table."""
    statistics, neighbours = found.statistics, found.statistics.neighbour_correlation
    assert neighbours is not None  # photographs have many places
    columns = (statistics.mean, statistics.std, statistics.ks, neighbours, found.kl)
    head = ["channel", "mean", "std", "KS distance", "correlation of neighbours", "KL, nats per latent"]
    rows = [
        [f"{channel}", *(f"{column[channel]:.2f}" for column in columns), f"{scale:.3f}"]
        for channel, scale in enumerate(np.broadcast_to(found.scale, len(found.kl)))
    ]
    return markdown([*head, "scaling factor"], rows)


def rounded_table(found: Spatial) -> str:
    """Map the figures of rounded latents to a Markdown table."""
    rows = [
        [f"{each.step:g}" if each.step else "none", f"{each.psnr:.2f}", f"{each.values:.0f}" if each.step else ""]
        for each in found.rounded
    ]
    return markdown(["step, standard deviations", "PSNR, dB", "different integers in a channel"], rows)


def numbers(found: Spatial) -> dict[str, Any]:
    """Map the figures to plain values."""
    statistics, neighbours = found.statistics, found.statistics.neighbour_correlation
    return {
        "scale": found.scale,
        **{name: getattr(statistics, name).tolist() for name in ("mean", "std", "ks")},
        "neighbour_correlation": None if neighbours is None else neighbours.tolist(),
        "kl_nats_per_latent": found.kl,
        "verdict": statistics.verdict,
        "rounded": [asdict(each) for each in found.rounded],
    }
