# SPDX-License-Identifier: Apache-2.0
"""How small latents get, and what each form costs in decoded PSNR, for any VAE.

    python -m benchmarks.latent_cache FOLDER [--model f8c4 ...] [--quality cache high ...] [--workers N] [-o OUT]

float32, float16, int8, float8, PNG, int8 through zstd, and `.lat` at its qualities; and the bits of `.lat` beside those
of simpler coders of the same integers. Writes rows.jsonl while it runs, then run.json, report.md
and report.html.
"""

from dataclasses import asdict
from typing import Any

from benchmarks.latent_cache import summary as parts
from benchmarks.latent_cache.caching import Plan, Quality
from benchmarks.report.arguments import folder_parser, sources
from benchmarks.report.model import Model
from benchmarks.report.page import Lines, Page
from benchmarks.report.rows import ImageFile, Measured
from benchmarks.report.run import run
from latentwire_core.errors import ModelError, TensorError
from latentwire_core.quality import LOSSLESS, step_multiple
from latentwire_core.quality import STEPS as QUALITIES

BENCHMARK = "latent_cache"


def show(
    plan: Plan, models: list[Model], measured: Measured, files: dict[str, ImageFile]
) -> tuple[dict[str, Any], Page]:
    """Map what was measured to the summary of run.json and to the page."""
    names = [model.name for model in models]
    costs = {name: parts.costs(measured.rows, name) for name in names}
    codings = {
        name: {quality: parts.coding(measured.rows, name, quality) for quality in plan.qualities} for name in names
    }
    page = Page(
        f"Latents of {len(measured.rows)} images",
        f"How small the latents of {', '.join(names)} get, and what each form costs in decoded PSNR.",
    )
    page.blocks.append(parts.plots(costs))
    for name in names:
        page.blocks.append(parts.cost_table(name, costs[name]))
        page.blocks.append(parts.coding_table(name, codings[name]))
    page.blocks.append(Lines("What is counted", parts.counted(plan.qualities)))
    summary = {
        "forms": {name: {form: asdict(cost) for form, cost in each.items()} for name, each in costs.items()},
        "bits_per_latent": {
            name: {quality: asdict(coding) for quality, coding in each.items()} for name, each in codings.items()
        },
    }
    return summary, page


def main(arguments: list[str] | None = None) -> None:
    """Measure a folder."""
    made = folder_parser(BENCHMARK, __doc__)
    quality = (
        "names, or steps in units; NAME+N: latents fitted to their image by N iterations; NAME+NxW: with W times the "
        "weight of bits"
    )
    made.add_argument("--quality", nargs="+", default=list(QUALITIES), help=quality)
    options = made.parse_args(arguments)
    plan = Plan(sources(made, options), tuple(quality for quality in options.quality if quality != LOSSLESS))
    try:
        for quality in plan.qualities:
            step_multiple(Quality.parse(quality).fineness)
        models = [source.load() for source in plan.sources]
    except (ModelError, TensorError) as error:
        made.error(str(error))
    parameters = {"models": [model.description for model in models], "qualities": list(plan.qualities)}
    run(BENCHMARK, options, parameters, plan.prepare, lambda measured, files: show(plan, models, measured, files))


if __name__ == "__main__":
    main()
