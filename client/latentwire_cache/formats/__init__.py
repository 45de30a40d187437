# SPDX-License-Identifier: Apache-2.0
"""Encoded images -> the files that a trainer reads, one module for each trainer.

for path, data in FORMATS["kohya-sdxl"].files(items, space, shard=0): ...
"""

from collections.abc import Mapping

from latentwire_cache.formats import ai_toolkit, kohya, mean_std, musubi, tars
from latentwire_cache.formats.encoded import Encoded, Format, Space
from latentwire_cache.formats.fast_dit import FastDiT
from latentwire_cache.formats.lightningdit import LightningDiT
from latentwire_cache.formats.mds import Mds
from latentwire_cache.formats.simpletuner import SimpleTuner

__all__ = ["FORMATS", "REFUSED", "Encoded", "Format", "Space"]

_ALL: tuple[Format, ...] = (
    kohya.SD, kohya.SDXL, kohya.SD3, kohya.FLUX,
    musubi.Z_IMAGE, musubi.QWEN_IMAGE, musubi.KREA2,
    ai_toolkit.SDXL, ai_toolkit.SD3, ai_toolkit.FLUX,
    LightningDiT(),
    tars.WEBDATASET, tars.WEBDATASET_SAMPLE, tars.WEBDATASET_MOMENTS,
    mean_std.PIXART, mean_std.PIXART_MS, mean_std.REPA,
    FastDiT(), SimpleTuner(), Mds(), tars.LAT,
)  # fmt: skip
FORMATS: Mapping[str, Format] = {each.name: each for each in _ALL}
"""The formats by name."""
REFUSED: Mapping[str, str] = {
    "edm2": "EDM2 feeds its VAE pixels in [0, 1], and all others [-1, 1]: latents of this cache would load in EDM2 "
    "without an error and be wrong; encode with EDM2's own dataset_tool.py",
    "musubi-flux2": "FLUX.2 in musubi-tuner is normalised by statistics inside its VAE that a cache does not have",
    "musubi-flux-kontext": "FLUX.1 Kontext needs the latents of a control image beside those of each image",
    "onetrainer": "OneTrainer finds its files by the place of an image in the folder, which any new image shifts",
}
"""Formats of which somebody may ask, and why there are none."""
