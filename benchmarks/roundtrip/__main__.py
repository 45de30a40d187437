# SPDX-License-Identifier: Apache-2.0
"""What VAEs lose on a folder of images, side by side, in how many bytes, and how fast they are.

    python -m benchmarks.roundtrip FOLDER [--model f8c4 ...] [--spread-of FOLDER] [--times] [--workers N] [-o OUT]

Images go through encode (mode, raw) and decode, and are rounded to uint8. They keep their size; a model with one fixed
size gets them framed to it. "Rounded at s" rounds latents to multiples of s standard deviations of their channel, over
the latents of up to 100 images of --spread-of. Writes rows.jsonl while it runs, then run.json, report.md and
report.html.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.report.arguments import add_metrics, folder_parser, listed, sources
from benchmarks.report.measuring import ImageFile, Measured, read
from benchmarks.report.model import Model
from benchmarks.report.page import Lines, Page, Strips
from benchmarks.report.run import run
from benchmarks.report.scores import METRICS, Wanted
from benchmarks.roundtrip import summary as parts
from benchmarks.roundtrip.losses import Plan, Rounding, deviations
from benchmarks.roundtrip.speed import Times, take_times
from latentwire_core.errors import ModelError

BENCHMARK = "roundtrip"
WORST = 3
STEPS = (0.125, 0.25, 0.5, 1.0)


def show(
    plan: Plan, models: list[Model], folder: str, worst: int, times: Times, measured: Measured,
    files: dict[str, ImageFile],
) -> tuple[dict[str, Any], Page]:  # fmt: skip
    """Map what was measured to the summary of run.json and to the page."""
    metrics, rows = plan.wanted.present(), measured.rows
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
    ordered = parts.worst(rows, names[0], METRICS[0] if METRICS[0] in metrics else metrics[0])[:worst]
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
    made.add_argument(
        "--rounded", nargs="*", type=float, default=STEPS, metavar="STEP",
        help=f"steps of rounded latents, in standard deviations; no step: no rounding (default {listed(STEPS)})",
    )  # fmt: skip
    made.add_argument(
        "--spread-of", type=Path, metavar="FOLDER",
        help="its latents give the standard deviations (default: those of FOLDER)",
    )  # fmt: skip
    made.add_argument("--bfloat16", action="store_true", help="measure bfloat16 too; slow on a CPU without it")
    made.add_argument("--times", action="store_true", help="time one image too, the models in turn")
    made.add_argument("--worst", type=int, default=WORST, help=f"images shown (default {WORST})")
    options = made.parse_args(arguments)
    asked = sources(made, options)
    try:
        models = [source.load() for source in asked]
        spread = {
            model.name: deviations(model, options.spread_of or options.folder) if options.rounded else []
            for model in models
        }
    except (ModelError, FileNotFoundError, ValueError) as error:
        made.error(str(error))
    wanted = Wanted(tuple(options.metrics), options.lpips_weights)
    plan = Plan(asked, wanted, Rounding(tuple(options.rounded), spread), options.bfloat16)
    parameters = {
        "models": [model.description for model in models],
        "metrics": [metric.name for metric in plan.wanted.present()],
        "rounding": asdict(plan.rounding),
        "bfloat16": plan.bfloat16,
    }
    folder = options.folder.resolve().name
    times = take_times(models) if options.times else {}
    run(
        BENCHMARK,
        options,
        parameters,
        plan.prepare,
        lambda measured, files: show(plan, models, folder, options.worst, times, measured, files),
    )


if __name__ == "__main__":
    main()
