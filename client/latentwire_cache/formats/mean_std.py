# SPDX-License-Identifier: Apache-2.0
"""Encoded images -> npy files of mean and standard deviation, raw: PixArt's and REPA's.

Sources: PixArt-alpha/PixArt-sigma (1ce521a), `diffusion/data/datasets/InternalData.py` and `InternalData_ms.py`;
sihyun-yu/REPA (67f7145), `dataset.py` and `preprocessing/dataset_tools.py`.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from latentwire_cache.buckets.frame import Frame
from latentwire_cache.buckets.pixart import RESOLUTIONS, table
from latentwire_cache.formats.content import cast, json_text, npy, without_suffix
from latentwire_cache.formats.encoded import Encoded, File, Note, Space, distinct, label_of, mean_and_std

REPLACED = (".png", ".jpg", ".webp", ".jpeg", ".JPEG", ".JPG")
"""What PixArt replaces, wherever it stands in a path; a file of another suffix keeps its name, and is read alike."""
REPA_IMAGE = re.compile(r"img(\d{8})")


@dataclass(frozen=True)
class PixArt:
    """The features of PixArt-Sigma, and `data_info.json`.

    With one size, the folders of images are dropped; with several, `a/b/photo.png` becomes `a/b_photo.npy`.

    Attributes:
        name: a key of `FORMATS`.
        rule: the name of the size rule.
        multiscale: whether the images have the sizes of PixArt's tables.
    """

    name: str
    rule: str
    multiscale: bool
    needs: frozenset[str] = frozenset({"moments"})
    per_item: bool = True

    def paths(self, key: str, frame: Frame) -> tuple[str, ...]:
        """Return the path of the image's features, named as PixArt looks for it."""
        resolution = self._resolution(key, frame)
        if not self.multiscale:
            name = posixpath.basename(key).replace(".png", ".npy")
            return (f"img_sdxl_vae_features_{resolution}resolution_new/{name}",)
        name = "_".join(key.rsplit("/", 1))
        for suffix in REPLACED:
            name = name.replace(suffix, ".npy")
        return (f"img_sdxl_vae_features_{resolution}resolution_ms_new/{name}",)

    def files(self, items: Sequence[Encoded], space: Space, shard: int) -> Iterator[File]:
        """Yield an npy for each image: float16 or float32 (2C,h,w)."""
        dtype = "float16" if space.dtype == "float16" else "float32"
        return distinct(
            (item.key, (self.paths(item.key, item.frame)[0], npy(cast(mean_and_std(item, self.name), dtype, item.key))))
            for item in items
        )

    def note(self, items: Sequence[Encoded], space: Space, shard: int) -> Note:
        """Return the entries of `data_info.json`, with the paths of the features."""
        return [
            {
                "path": item.key,
                "width": item.frame.original[0],
                "height": item.frame.original[1],
                "ratio": item.frame.original[1] / item.frame.original[0],
                "prompt": item.caption or "",
                "features": self.paths(item.key, item.frame)[0],
            }
            for item in items
        ]

    def index(self, notes: Sequence[Note]) -> Iterator[File]:
        """Yield `data_info.json`."""
        entries = sorted((entry for note in notes for entry in note), key=lambda entry: str(entry["path"]))
        list(distinct((entry["path"], (entry["features"], b"")) for entry in entries))
        yield "data_info.json", json_text([{k: v for k, v in each.items() if k != "features"} for each in entries])

    def _resolution(self, key: str, frame: Frame) -> int:
        if not self.multiscale:
            if frame.bucket[0] != frame.bucket[1]:
                raise ValueError(f"{key} has {frame.bucket[0]}x{frame.bucket[1]} pixels; {self.name} needs squares")
            return frame.bucket[0]
        for resolution in RESOLUTIONS:
            if frame.bucket in [size for _, size in table(resolution)]:
                return resolution
        raise ValueError(
            f"{key} has {frame.bucket[0]}x{frame.bucket[1]} pixels, a size of no table; plan with {self.rule}"
        )


@dataclass(frozen=True)
class Repa:
    """The features of REPA and `dataset.json`, for the folder of a data set whose `images` were encoded.

    REPA pairs images and features by their sorted places, and so the features are named after the images: plan the
    folder `images` that REPA's own `dataset_tools.py convert` made.
    """

    name: str = "repa"
    rule: str = "imagenet"
    needs: frozenset[str] = frozenset({"moments", "label"})
    per_item: bool = True

    def paths(self, key: str, frame: Frame) -> tuple[str, ...]:
        """Return the path of the image's features: `00000/img00000007.png` has a name of REPA's own."""
        folder, name = posixpath.split(without_suffix(key))
        numbered = REPA_IMAGE.fullmatch(name)
        return (posixpath.join("vae-sd", folder, f"{f'img-mean-std-{numbered[1]}' if numbered else name}.npy"),)

    def files(self, items: Sequence[Encoded], space: Space, shard: int) -> Iterator[File]:
        """Yield an npy for each image: float32 (2C,h,w)."""
        return distinct(
            (
                item.key,
                (self.paths(item.key, item.frame)[0], npy(cast(mean_and_std(item, self.name), "float32", item.key))),
            )
            for item in items
        )

    def note(self, items: Sequence[Encoded], space: Space, shard: int) -> Note:
        """Return the key, the file and the class of each image."""
        return [[item.key, self.paths(item.key, item.frame)[0], label_of(item, self.name)] for item in items]

    def index(self, notes: Sequence[Note]) -> Iterator[File]:
        """Yield `vae-sd/dataset.json`."""
        entries = sorted((entry for note in notes for entry in note), key=lambda entry: str(entry[1]))
        list(distinct((key, (path, b"")) for key, path, _ in entries))
        labels = [[path.removeprefix("vae-sd/"), label] for _, path, label in entries]
        yield "vae-sd/dataset.json", json_text({"labels": labels})


PIXART = PixArt("pixart", "pixart-square", multiscale=False)
PIXART_MS = PixArt("pixart-ms", "pixart", multiscale=True)
REPA = Repa()
