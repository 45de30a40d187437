# SPDX-License-Identifier: Apache-2.0
"""JSON files as CompressAI's evaluation writes them -> curves that others measured."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rate_distortion.curves import Curve
from benchmarks.report.scores import to_db

RATE = "bpp"
PSNR_KEYS, MS_SSIM_KEYS = ("psnr-rgb", "psnr"), ("ms-ssim-rgb", "ms-ssim")


def read_curves(paths: Sequence[Path]) -> list[Curve]:
    """Map files to their curves, each of a name of its own.

    Raises:
        ValueError: one is no such file, or two have one name.
        OSError: one cannot be read.
    """
    curves = [read_curve(path) for path in paths]
    if len({curve.codec for curve in curves}) < len(curves):
        names = "; ".join(curve.codec for curve in curves)
        raise ValueError(f"two curves have one name: {names}; change `name` in one of the files")
    return curves


def read_curve(path: Path) -> Curve:
    """Map a file with `name` and `results`, lists of `bpp`, `psnr-rgb` and `ms-ssim-rgb`, to a curve.

    Raises:
        ValueError: it is not such a file.
        OSError: it cannot be read.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        name, results = str(read["name"]), read["results"]
        columns = {"psnr_db": PSNR_KEYS, "ms_ssim": MS_SSIM_KEYS}
        found = {ours: next((results[key] for key in keys if key in results), None) for ours, keys in columns.items()}
        points = []
        for index, rate in enumerate(results[RATE]):
            scores = {ours: float(column[index]) for ours, column in found.items() if column is not None}
            if "ms_ssim" in scores:
                scores["ms_ssim_db"] = to_db(scores["ms_ssim"])
            points.append((float(rate), scores))
    except (AttributeError, IndexError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is no result of CompressAI ({type(error).__name__}: {error}); it needs `name` and `results` with "
            f"equally long lists `{RATE}` and `{PSNR_KEYS[0]}` or `{MS_SSIM_KEYS[0]}`"
        ) from error
    if not points:
        raise ValueError(f"{path} has no points")
    return Curve.of(f"{name}, read", [(rate, dict(scores)) for rate, scores in points])
