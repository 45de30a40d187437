# SPDX-License-Identifier: Apache-2.0
"""An image and its decoded version -> scores by each metric of this machine, and why other metrics are absent."""

import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentwire_codec.images.geometry import Pixels
from latentwire_codec.images.writing import write_image
from latentwire_codec.metrics import scores
from latentwire_core.errors import CheckpointError
from latentwire_core.formats import ImageFormat

if TYPE_CHECKING:
    from latentwire_train.loss.lpips import Lpips

CAP_DB = 100.0  # the score of equal images, in place of infinity: a mean over images needs a number
BUTTERAUGLI_TOOL = "butteraugli_main"

Scores = Mapping[str, float | None]  # scores by the name of the metric; None: the image is too small for the metric

Formula = Callable[[Pixels, Pixels], float]


@dataclass(frozen=True)
class Metric:
    """A measure of how much two images differ."""

    name: str  # its name in rows and in `--metrics`
    label: str  # its name in tables and plots
    digits: int  # digits behind the point in tables
    min_side: int = 1  # the smallest side of an image that can be scored, in pixels
    higher_is_better: bool = True  # whether equal images have the largest score
    shown_from: float | None = None  # the lowest score in plots; None: plots begin at the lowest measured score

    def quality(self, score: float) -> float:
        """Map a score to a number that grows with quality, for BD-rates; a distance is mapped to dB."""
        return score if self.higher_is_better else -10 * math.log10(max(score, 1e-10))


METRICS = (
    Metric("psnr_db", "PSNR, dB", 2),
    Metric("ssim", "SSIM", 4, min_side=11),
    Metric("ms_ssim", "MS-SSIM", 4, min_side=161),
    Metric("ms_ssim_db", "MS-SSIM, dB", 2, min_side=161),
    Metric("ssimulacra2", "SSIMULACRA2", 1, min_side=8, shown_from=-30),
    Metric("butteraugli", "Butteraugli, 3-norm", 3, min_side=8, higher_is_better=False),
    Metric("lpips", "LPIPS, VGG16", 4, min_side=16, higher_is_better=False),
)
# Metrics that can be asked for; MS-SSIM in dB comes with MS-SSIM.
NAMES = tuple(metric.name for metric in METRICS if metric.name != "ms_ssim_db")


def to_db(ms_ssim: float) -> float:
    """Map MS-SSIM to dB, -10 log10(1 - MS-SSIM), as papers plot it."""
    return min(CAP_DB, -10 * math.log10(max(1 - ms_ssim, 1e-30)))


@dataclass(frozen=True)
class Wanted:
    """Which metrics a run wants."""

    names: Sequence[str] = NAMES
    lpips_weights: Path | None = None  # the folder with the two weight files, see `lpips_from`; None: LPIPS is absent

    def absent(self) -> dict[str, str]:
        """Return the label of each wanted metric that this machine does not have, with the reason."""
        reasons = {}
        if "butteraugli" in self.names and shutil.which(BUTTERAUGLI_TOOL) is None:
            reasons["Butteraugli"] = f"there is no {BUTTERAUGLI_TOOL} on PATH (Debian: libjxl-devtools)"
        if "lpips" in self.names:
            if self.lpips_weights is None:
                reasons["LPIPS"] = "its weights are not on disk (name their folder with --lpips-weights)"
            else:
                try:
                    self._lpips()
                except CheckpointError as error:
                    reasons["LPIPS"] = str(error)
        reasons["DISTS"] = "latentwire does not compute it: there are no weights to check it against"
        return reasons

    def present(self) -> list[Metric]:
        """Return the wanted metrics that this machine has."""
        absent = self.absent()
        wanted = [metric for metric in METRICS if metric.name.removesuffix("_db") in self._stems()]
        return [metric for metric in wanted if metric.label.partition(",")[0] not in absent]

    def scorer(self) -> "Scorer":
        """Load what the metrics need."""
        formulas = dict(FORMULAS)
        present = self.present()
        if any(metric.name == "lpips" for metric in present):
            formulas["lpips"] = partial(_distance, self._lpips())
        return Scorer(present, formulas)

    def _stems(self) -> set[str]:
        return {name.removesuffix("_db") for name in self.names}

    def _lpips(self) -> "Lpips":
        from latentwire_train.loss.lpips import lpips_from

        assert self.lpips_weights is not None
        return lpips_from(self.lpips_weights)


@dataclass(frozen=True)
class Scorer:
    """Maps two images to their scores."""

    metrics: Sequence[Metric]
    formulas: Mapping[str, Formula]

    def __call__(self, original: Pixels, decoded: Pixels) -> dict[str, float | None]:
        """Map an image and its decoded version, both uint8 (H,W,3), to scores."""
        side = min(original.shape[:2])
        found: dict[str, float | None] = {}
        for metric in self.metrics:
            if side < metric.min_side:
                found[metric.name] = None
            elif metric.name == "ms_ssim_db":
                found[metric.name] = to_db(found["ms_ssim"] or 0.0)
            else:
                found[metric.name] = self.formulas[metric.name](original, decoded)
        return found


def psnr(original: Pixels, decoded: Pixels) -> float:
    """Map two images to their PSNR in dB, at most CAP_DB."""
    return min(CAP_DB, scores.psnr(original, decoded))


def _distance(lpips: "Lpips", original: Pixels, decoded: Pixels) -> float:
    import torch

    from latentwire_codec.images import pixels

    batches = (pixels.to_float(torch.from_numpy(np.ascontiguousarray(each))[None]) for each in (decoded, original))
    with torch.inference_mode():
        return float(lpips(*batches))


def butteraugli(original: Pixels, decoded: Pixels) -> float:
    """Map two images to the 3-norm of Butteraugli by libjxl's tool; 0 for equal images.

    Raises:
        OSError: the tool failed, or printed no 3-norm.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{name}.png") for name in ("original", "decoded")]
        for path, image in zip(paths, (original, decoded), strict=True):
            path.write_bytes(write_image(image, ImageFormat.PNG))
        result = subprocess.run([BUTTERAUGLI_TOOL, *map(str, paths)], capture_output=True, text=True, check=False)
    norm = re.search(r"^3-norm: ([0-9.]+)", result.stdout, re.MULTILINE)
    if result.returncode or norm is None:
        raise OSError(f"{BUTTERAUGLI_TOOL} said {(result.stdout + result.stderr).strip()!r}; its 3-norm is needed")
    return float(norm[1])


FORMULAS: dict[str, Formula] = {
    "psnr_db": psnr,
    "ssim": scores.ssim,
    "ms_ssim": scores.ms_ssim,
    "ssimulacra2": scores.ssimulacra2,
    "butteraugli": butteraugli,
}
