# SPDX-License-Identifier: Apache-2.0
"""Findings of an autoencoder and a VAE -> one figure and one table, as markdown and as plain numbers."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latent_space.comparison import FRAMES, STEPS, Findings
from benchmarks.latent_space.datasets import Dataset
from benchmarks.latent_space.faces import mean_accuracy
from benchmarks.latent_space.models import Model, Pixels
from benchmarks.latent_space.pictures import BLUE, GREY, ORANGE, markdown, new_figure, save_figure, show_rows
from latentwire_lab.attributes import Attributes
from latentwire_lab.paths import along_line, prior_samples

COLUMNS = 9
SHOWN_STEPS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
HOLE_STEP = 0.5  # the step in the table, standard deviations


def draw(models: Mapping[str, Model], findings: Mapping[str, Findings], data: Dataset, path: Path) -> None:
    """Draw prior samples, an interpolation and steps away from an image for both models, and the measures of holes."""
    figure = new_figure(8.6)
    parts = figure.subfigures(4, 1, height_ratios=[1, 1, 1.08, 1.35], squeeze=False).flat
    names, captions = list(models), [f"{step:g}" for step in SHOWN_STEPS]
    rows = {
        "Samples of N(0, I)": [model.decode(prior_samples(model.info, range(COLUMNS))) for model in models.values()],
        "Between two test images, along the line": [_between(model, data) for model in models.values()],
        "A step away from a test image in a random direction, in standard deviations": [
            _away(models[name], findings[name], data) for name in names
        ],
    }
    *upper, plots = parts
    for part, (title, images), above in zip(upper, rows.items(), ([], [], captions), strict=True):
        show_rows(part, images, names, above)
        part.suptitle(title, x=0.01, ha="left", fontsize=10)
    panels = plots.subplots(1, 3)
    places = (np.arange(FRAMES - 1) + 0.5) / (FRAMES - 1)
    for (name, found), colour in zip(findings.items(), (ORANGE, BLUE), strict=True):
        for panel, across, values in zip(
            panels, (places, STEPS, STEPS), (found.pace, found.astray, found.away), strict=True
        ):
            panel.plot(across, values, "o-", ms=3, color=colour, label=name)
    panels[2].axhline(next(iter(findings.values())).real.nearest, color=GREY, ls="--", lw=1, label="test images")
    titles = (
        "between: length of a step, in mean steps",
        "away: to the image that is left",
        "away: to the nearest training image",
    )
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=9, loc="left")
        panel.set_xlabel("where on the line" if panel is panels[0] else "step, standard deviations", fontsize=8)
        panel.set_ylim(0, 1.1 * panel.get_ylim()[1])
        panel.grid(alpha=0.3)
        panel.tick_params(labelsize=8)
        panel.legend(fontsize=8)
    panels[1].set_ylabel("distance, grey levels", fontsize=8)
    save_figure(figure, path)


def _between(model: Model, data: Dataset) -> Pixels:
    start, end = model.encode(data.test[2:4]).mode().split()
    return model.decode(along_line(start, end, COLUMNS))


def _away(model: Model, found: Findings, data: Dataset) -> Pixels:
    point = model.means(data.test[:1])
    direction = found.gaussian.steps(1, 1)
    return model.decode_points(np.concatenate([point + step * direction for step in SHOWN_STEPS]))


def table(findings: Mapping[str, Findings], attributes: Mapping[str, Attributes]) -> str:
    """Map model names and findings to a Markdown table with a column for each; some models have attributes."""
    step = STEPS.index(HOLE_STEP)

    def ks(found: Findings) -> str:
        return f"{found.statistics.ks.mean():.3f} ({found.statistics.ks.max():.3f})"

    def nats(found: Findings) -> str:
        kl = found.statistics.total_kl
        return "none" if found.is_plain or kl is None else f"{kl:.0f}"

    cells: dict[str, Callable[[Findings], str]] = {
        "**Reconstruction** of test images: PSNR, dB": lambda f: f"{f.psnr:.2f}",
        "**Latents**: KL divergence to N(0, I), nats per image": nats,
        "active dimensions": lambda f: f"{int(f.statistics.active.sum())} of {len(f.statistics.mean)}",
        "KS distance to N(0, 1): mean (largest)": ks,
        "**Samples** of N(0, I): Fréchet distance to test images": lambda f: f"{f.standard.frechet:.0f}",
        "of a normal distribution fitted to the latents": lambda f: f"{f.fitted.frechet:.0f}",
        "of reconstructions": lambda f: f"{f.reconstructed.frechet:.0f}",
        "of as many training images, for comparison": lambda f: f"{f.real.frechet:.0f}",
        "**Interpolation**: longest step, in mean steps, line": lambda f: f"{f.line:.2f}",
        "sphere": lambda f: f"{f.sphere:.2f}",
        "its middle: to the nearest training image": lambda f: f"{f.middle.nearest:.1f}",
        "test images: to the nearest training image": lambda f: f"{f.real.nearest:.1f}",
        f"**Holes**: a step of {HOLE_STEP:g}: to the image it leaves": lambda f: f"{f.astray[step]:.1f}",
        "to the nearest training image": lambda f: f"{f.away[step]:.1f}",
    }
    rows = [[name, *map(cell, findings.values())] for name, cell in cells.items()]
    accuracies = [f"{100 * mean_accuracy(attributes[name]):.1f}" if name in attributes else "" for name in findings]
    rows.append(["**Attribute vectors**: balanced accuracy on test images, mean, %", *accuracies])
    return markdown(["", *findings], rows, first="---")


def numbers(found: Findings) -> dict[str, Any]:
    """Map findings to plain values."""
    statistics = found.statistics
    return {
        "psnr": found.psnr,
        "total_kl_nats": None if found.is_plain else statistics.total_kl,
        "active_dimensions": int(statistics.active.sum()),
        "dimensions": len(statistics.mean),
        "ks_mean": float(statistics.ks.mean()),
        "ks_largest": float(statistics.ks.max()),
        "std_smallest": float(statistics.std.min()),
        "std_largest": float(statistics.std.max()),
        "verdict": statistics.verdict,
        **{part: asdict(getattr(found, part)) for part in ("real", "reconstructed", "standard", "fitted", "middle")},
        "unevenness": {"line": found.line, "sphere": found.sphere},
        "steps": {
            str(step): {"astray": astray, "nearest": away}
            for step, astray, away in zip(STEPS, found.astray, found.away, strict=True)
        },
    }
