# SPDX-License-Identifier: Apache-2.0
"""Quality against bytes: latentwire beside JPEG, WebP, AVIF, JPEG XL and JPEG 2000 on a folder, in one run.

    python -m benchmarks.rate_distortion FOLDER [--model f8c4 ...] [--workers N] [--compressai FILE ...]
        [--refine ITERATIONS] [-o OUT]

Every byte of a file counts. Writes rows.jsonl while it runs (the same command continues an interrupted run), then
run.json, report.md, report.html, and in curves/ one JSON file a codec for `python -m compressai.utils.plot -f`.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.rate_distortion import summary as parts
from benchmarks.rate_distortion.codecs import FILE_CODECS, Plan
from benchmarks.rate_distortion.curves import Curve, Difference, averaged, mean_scores, read_curves, write_curves
from benchmarks.report.arguments import add_metrics, folder_parser, sources
from benchmarks.report.model import Model
from benchmarks.report.page import Lines, Page, Strips
from benchmarks.report.rows import ImageFile, Measured, read
from benchmarks.report.run import out_folder, run
from benchmarks.report.scores import Wanted
from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_core.errors import ModelError, TensorError

BENCHMARK = "rate_distortion"
STRIP_RATE = 0.15


def show(
    plan: Plan, models: list[Model], known: list[Curve], count: int, measured: Measured, files: dict[str, ImageFile]
) -> tuple[dict[str, Any], Page]:
    """Map what was measured to the summary of run.json and to the page."""
    metrics = plan.wanted.present()
    own = averaged(measured.rows)
    curves = own | {curve.codec: curve for curve in known}
    codecs = plan.codecs(models)
    names = [codec.name for codec in plan.latent_codecs(models)]
    # Fitted latents can score above the encoded ones.
    unquantized = [codec.name for codec in plan.latent_codecs(models) if codec.refinement is None]
    limits = {name: mean_scores([row["unquantized"][name] for row in measured.rows]) for name in unquantized}
    found = {name: parts.differences(name, curves, metrics) for name in names}
    images = {name: parts.per_image(name, measured.rows, metrics) for name in names}
    absent = plan.wanted.absent()
    page = Page(
        f"Rate and distortion on {len(measured.rows)} images",
        f"{', '.join(names)} beside {', '.join(plan.files) or 'nothing else'}, measured in one run. "
        f"At {parts.RATES[0]:g} to {parts.RATES[-1]:g} bits per pixel.",
    )
    page.blocks.append(parts.plots(curves, [c.codec for c in known], limits, parts.compared(metrics)))
    page.blocks.extend(parts.rate_tables(curves, metrics))
    page.blocks.extend(parts.difference_table(name, found[name], images[name], metrics) for name in names)
    refused = [line for name in names for line in parts.refusals(name, found[name], metrics)]
    if refused:
        page.blocks.append(Lines(f"Why {len(refused)} BD-rates were refused", refused, folded=True))
    chosen = _spread(measured.rows, names[0], count)
    if chosen:
        pictures = [parts.strip(row["file"], read(files[row["file"]].path), row, codecs, STRIP_RATE) for row in chosen]
        note = (
            f"The most bytes that each codec uses at or below {STRIP_RATE:g} bits per pixel. Above the whole image, "
            "made smaller; below the part of it with most detail, pixel by pixel. The images go from the highest to "
            f"the lowest PSNR of unquantized latents of {names[0]}."
        )
        page.blocks.append(Strips("At equal bytes", pictures, note))
    page.blocks.append(Lines("What is counted", [f"{codec.name}: {codec.counted}" for codec in codecs]))
    page.blocks.append(Lines("Absent metrics", [f"{name}: {reason}" for name, reason in absent.items()]))
    summary = {
        "absent_metrics": absent,
        "counted": {codec.name: codec.counted for codec in codecs},
        "curves": {name: asdict(curve) for name, curve in curves.items()},
        "at_rates": {
            metric.name: {name: {f"{r:g}": curve.at(metric, r) for r in parts.RATES} for name, curve in curves.items()}
            for metric in metrics
        },
        "unquantized": limits,
        "bd_rates": {
            name: {
                other: {
                    metric: _in_json(each, images[name].get(other, {}).get(metric, [])) for metric, each in row.items()
                }
                for other, row in found[name].items()
            }
            for name in names
        },
    }
    return summary, page


def _in_json(difference: Difference, per_image: list[float]) -> dict[str, Any]:
    return {
        "averaged_percent": difference.percent,
        "reason": difference.reason,
        "qualities": None if difference.percent is None else [difference.low, difference.high],
        "per_image_percent": per_image,
    }


def _spread(rows: list[dict[str, Any]], name: str, count: int) -> list[dict[str, Any]]:
    """Return `count` rows, or all, from the highest to the lowest PSNR of unquantized latents, evenly spaced."""
    ordered = sorted(rows, key=lambda row: -row["unquantized"][name].get("psnr_db", 0.0))
    if len(ordered) <= count or count < 2:
        return ordered[:count]
    return [ordered[round(index * (len(ordered) - 1) / (count - 1))] for index in range(count)]


def main(arguments: list[str] | None = None) -> None:
    """Measure a folder."""
    made = folder_parser(BENCHMARK, __doc__)
    add_metrics(made)
    names = [codec.name for codec in FILE_CODECS]
    add = made.add_argument
    add("--codecs", nargs="*", choices=names, default=names, help="beside latentwire")
    add("--compressai", nargs="+", type=Path, default=[], metavar="FILE", help="curves to show beside these")
    refine = "also measure latents that are fitted to their image, at named qualities"
    add("--refine", type=int, metavar="ITERATIONS", help=refine)
    add("--strips", type=int, default=3, help="images shown")
    options = made.parse_args(arguments)
    wanted = Wanted(tuple(options.metrics), options.lpips_weights)
    try:
        refinement = None if options.refine is None else LatentOptimisation(options.refine)
        plan = Plan(sources(made, options), wanted, tuple(options.codecs), refinement)
        curves = read_curves(options.compressai)
        models = [source.load() for source in plan.sources]
    except (ModelError, TensorError, OSError, ValueError) as error:
        made.error(str(error))
    fixed = [model.name for model in models if model.autoencoder.spec.fixed_size is not None]
    if fixed:
        made.error(f"{', '.join(fixed)} takes images of one size only; benchmarks.roundtrip frames them")
    codecs = plan.codecs(models)
    parameters = {
        "models": [model.description for model in models],
        "codecs": {codec.name: list(codec.settings) for codec in codecs},
        "metrics": [metric.name for metric in plan.wanted.present()],
        "interpolation": "PCHIP over log bits per pixel; BD-rate: PCHIP of log rate over quality",
    }

    def show_and_write(measured: Measured, files: dict[str, ImageFile]) -> tuple[dict[str, Any], Page]:
        description = f"latentwire benchmark on {len(measured.rows)} images of {options.folder.resolve().name}"
        write_curves(averaged(measured.rows).values(), description, out_folder(BENCHMARK, options) / "curves")
        return show(plan, models, curves, options.strips, measured, files)

    run(BENCHMARK, options, parameters, plan.prepare, show_and_write)


if __name__ == "__main__":
    main()
