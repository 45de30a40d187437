# SPDX-License-Identifier: Apache-2.0
"""What VAEs lose, and how far they compress: images through encode (mode, raw, float32) and decode, uint8-rounded.

    python -m benchmarks.roundtrip FOLDER [--model f8c4 ...] [--workers N] [-o OUT]

The images have their own size, or are framed to that of a model which takes one size only. Mean, percentiles and the
worst images; several VAEs side by side. Writes rows.jsonl while it runs, then run.json and report.html.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.report.folder import ImageFile
from benchmarks.report.measuring import Measured, read
from benchmarks.report.model import Model
from benchmarks.report.page import Lines, Page, Strips
from benchmarks.report.run import parser, run, sources
from benchmarks.report.scores import METRICS, NAMES, Wanted
from benchmarks.roundtrip import page as parts
from benchmarks.roundtrip.losses import Plan
from latentwire_core.errors import ModelError

BENCHMARK = "roundtrip"
WORST = 3


def show(
    plan: Plan, models: list[Model], folder: str, worst: int, measured: Measured, files: dict[str, ImageFile]
) -> tuple[dict[str, Any], Page]:
    """Map what was measured to the summary of run.json and to the page."""
    metrics, rows = plan.wanted.present(), measured.rows
    names = [model.name for model in models]
    absent = plan.wanted.absent()
    page = Page(
        f"{', '.join(names)} on {len(rows)} images",
        f"What comes back of the images of {folder} through {', '.join(names)}, and in how many bytes.",
    )
    page.blocks.append(parts.beside(names, rows, metrics))
    page.blocks.extend(parts.table(model, folder, rows, metrics) for model in models)
    page.blocks.append(parts.plots(names, rows, metrics))
    labels = {metric.name: (metric.label, metric.digits) for metric in metrics}
    ordered = parts.worst(rows, names[0], METRICS[0] if METRICS[0] in metrics else metrics[0])[:worst]
    if ordered:
        strips = [parts.strip(read(files[row["file"]].path), row, models, labels) for row in ordered]
        note = "Above the whole image, made smaller; below the part of it with most detail, pixel by pixel."
        page.blocks.append(Strips(f"The worst images of {names[0]}", strips, note))
    page.blocks.append(Lines("Metrics that are absent", [f"{name}: {reason}" for name, reason in absent.items()]))
    summary = {
        "absent_metrics": absent,
        "models": {
            name: {
                "sizes": parts.ratios(rows, name),
                "scores": {metric: asdict(each) for metric, each in parts.summaries(rows, name, metrics).items()},
            }
            for name in names
        },
    }
    return summary, page


def main(arguments: list[str] | None = None) -> None:
    """Measure a folder."""
    made = parser(__doc__, BENCHMARK)
    made.add_argument("--metrics", nargs="+", choices=NAMES, default=list(NAMES), help="default: all that are there")
    made.add_argument("--lpips-weights", type=Path, metavar="FOLDER", help="with LPIPS' two weight files")
    made.add_argument("--worst", type=int, default=WORST, help=f"images shown (default {WORST})")
    options = made.parse_args(arguments)
    plan = Plan(sources(options), Wanted(tuple(options.metrics), options.lpips_weights))
    try:
        models = [source.load() for source in plan.sources]
    except ModelError as error:
        made.error(str(error))
    parameters = {
        "models": [model.description for model in models],
        "metrics": [metric.name for metric in plan.wanted.present()],
    }
    folder = options.folder.resolve().name
    run(
        BENCHMARK,
        options,
        parameters,
        plan.prepare,
        lambda measured, files: show(plan, models, folder, options.worst, measured, files),
    )


if __name__ == "__main__":
    main()
