# SPDX-License-Identifier: Apache-2.0
"""Curves <-> JSON files as CompressAI's evaluation writes them and `compressai.utils.plot` reads them."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.rate_distortion.curves import Curve
from benchmarks.report.scores import to_db

RATE = "bpp"
PSNR_KEYS, MS_SSIM_KEYS = ("psnr-rgb", "psnr"), ("ms-ssim-rgb", "ms-ssim")
OWN_KEYS = ("ssim", "ssimulacra2", "butteraugli", "lpips")
KEYS = {"psnr_db": PSNR_KEYS, "ms_ssim": MS_SSIM_KEYS, **{name: (name,) for name in OWN_KEYS}}
"""Keys of each metric in `results`; the first is written. MS-SSIM in dB is left to the plot tools."""


def write_curves(curves: Iterable[Curve], description: str, folder: Path) -> list[Path]:
    """Write one file a curve into a folder, named after its codec; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for curve in curves:
        results = {RATE: curve.rates} | {
            keys[0]: curve.scores[name] for name, keys in KEYS.items() if name in curve.scores
        }
        path = folder / (re.sub(r"[^a-z0-9]+", "-", curve.codec.lower()).strip("-") + ".json")
        text = json.dumps({"name": curve.codec, "description": description, "results": results}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def read_curves(paths: Sequence[Path]) -> list[Curve]:
    """Map files to their curves; each has another name.

    Raises:
        ValueError: a file is not from CompressAI, or two curves have one name.
        OSError: a file cannot be read.
    """
    curves = [read_curve(path) for path in paths]
    if len({curve.codec for curve in curves}) < len(curves):
        names = "; ".join(curve.codec for curve in curves)
        raise ValueError(f"two curves have one name: {names}; change `name` in one of the files")
    return curves


def read_curve(path: Path) -> Curve:
    """Map a file with `name` and `results`, lists of `bpp`, `psnr-rgb`, `ms-ssim-rgb` ..., to a curve.

    Raises:
        ValueError: the file has another form.
        OSError: the file cannot be read.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        name, results = str(read["name"]), read["results"]
        found = {ours: next((results[key] for key in keys if key in results), None) for ours, keys in KEYS.items()}
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
