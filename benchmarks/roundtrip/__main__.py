# SPDX-License-Identifier: Apache-2.0
"""What VAEs lose on a folder of images, side by side, in how many bytes, and how fast they are.

    python -m benchmarks.roundtrip FOLDER [--model f8c4 ...] [--spread-of FOLDER] [--times] [--workers N] [-o OUT]

Images go through encode (mode, raw) and decode, and are rounded to uint8. They keep their size; a model with one fixed
size gets them framed to it. "Rounded at s" rounds latents to multiples of s standard deviations of their channel, over
the latents of up to 100 images of --spread-of. Writes rows.jsonl while it runs, then run.json, report.md and
report.html.
"""

from argparse import Namespace
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report.arguments import add_metrics, folder_parser, sources
from benchmarks.report.model import Model
from benchmarks.report.page import Lines, Page, Strips
from benchmarks.report.rows import ImageFile, Measured, read
from benchmarks.report.run import run
from benchmarks.report.scores import METRICS, Wanted
from benchmarks.roundtrip import summary as parts
from benchmarks.roundtrip.losses import Plan, Rounding, Times, deviations, take_times
from latentwire_core.errors import ModelError

BENCHMARK = "roundtrip"


def show(
    plan: Plan, models: list[Model], options: Namespace, times: Times, measured: Measured, files: dict[str, ImageFile]
) -> tuple[dict[str, Any], Page]:
    """Map what was measured to the summary of run.json and to the page."""
    metrics, rows, folder = plan.wanted.present(), measured.rows, options.folder.resolve().name
    names = [model.name for model in models]
    absent = plan.wanted.absent()
    page = Page(
        f"{', '.join(names)} on {len(rows)} images",
        f"The loss of {', '.join(names)} on the images of {folder}, in how many bytes. "
        f"Device and dtype: {', '.join(f'{m.autoencoder.spec.device} {m.autoencoder.spec.dtype}' for m in models)}.",
    )
    page.blocks.append(parts.beside(models, rows, metrics, times))
    page.blocks.extend(parts.percentiles(model, folder, rows, metrics) for model in models)
    page.blocks.append(parts.plots(names, rows, metrics))
    labels = {metric.name: (metric.label, metric.digits) for metric in metrics}
    ordered = parts.worst(rows, names[0], METRICS[0] if METRICS[0] in metrics else metrics[0])[: options.worst]
    if ordered:
        strips = [parts.strip(read(files[row["file"]].path), row, models, labels) for row in ordered]
        note = "Above the whole image, made smaller; below the part of it with most detail, pixel by pixel."
        page.blocks.append(Strips(f"The worst images of {names[0]}", strips, note))
    page.blocks.append(Lines("Absent metrics", [f"{name}: {reason}" for name, reason in absent.items()]))
    summary = {
        "absent_metrics": absent,
        "models": {
            name: {
                "sizes": parts.ratios(rows, name),
                "scores": {metric: asdict(each) for metric, each in parts.summaries(rows, name, metrics).items()},
                "psnr_db": parts.coarse(rows, name),
                "seconds": times.get(name, {}),
            }
            for name in names
        },
    }
    return summary, page


def main(arguments: list[str] | None = None) -> None:
    """Measure a folder."""
    made = folder_parser(BENCHMARK, __doc__)
    add_metrics(made)
    add = made.add_argument
    rounded = "steps of rounded latents, in standard deviations; no step: no rounding"
    spread = "its latents give the standard deviations (default: those of FOLDER)"
    add("--rounded", nargs="*", type=float, default=(0.125, 0.25, 0.5, 1.0), metavar="STEP", help=rounded)
    add("--spread-of", type=Path, metavar="FOLDER", help=spread)
    add("--bfloat16", action="store_true", help="measure bfloat16 too; slow on a CPU without it")
    add("--times", action="store_true", help="time one image too, the models in turn")
    add("--worst", type=int, default=3, help="images shown")
    options = made.parse_args(arguments)
    asked = sources(made, options)
    try:
        models = [source.load() for source in asked]
        spread_of = options.spread_of or options.folder
        deviating = {model.name: deviations(model, spread_of) if options.rounded else [] for model in models}
    except (ModelError, FileNotFoundError, ValueError) as error:
        made.error(str(error))
    wanted = Wanted(tuple(options.metrics), options.lpips_weights)
    plan = Plan(asked, wanted, Rounding(tuple(options.rounded), deviating), options.bfloat16)
    parameters = {
        "models": [model.description for model in models],
        "metrics": [metric.name for metric in plan.wanted.present()],
        "rounding": asdict(plan.rounding),
        "bfloat16": plan.bfloat16,
    }
    shown = partial(show, plan, models, options, take_times(models) if options.times else {})
    run(BENCHMARK, options, parameters, plan.prepare, shown)


if __name__ == "__main__":
    main()
