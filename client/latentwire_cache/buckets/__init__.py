# SPDX-License-Identifier: Apache-2.0
"""The size of an image -> how it becomes pixels for the VAE, by the rule of a trainer."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from latentwire_codec.images.geometry import pad_to_multiple, padded_side

PAD = "pad-"
"""The filter of a frame that is padded: the multiple follows."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """How one image becomes pixels for the VAE; sizes are (width, height)."""

    original: tuple[int, int]
    bucket: tuple[int, int]
    resized: tuple[int, int]
    crop: tuple[int, int]
    filter: str
    applies_exif: bool


class SizeRule(Protocol):
    """A trainer's choice of sizes."""

    def frame(self, header_size: tuple[int, int], orientation: int) -> Frame:
        """Map the size in the file's header and the EXIF orientation to a frame."""
        ...


@dataclass(frozen=True)
class Exact:
    """No resizing: an image is padded to multiples of the VAE's downsampling factor, as `encode` does."""

    multiple: int

    def frame(self, header_size: tuple[int, int], orientation: int) -> Frame:
        """Map the size in the file's header and the EXIF orientation to a frame."""
        width, height = header_size if orientation < 5 else header_size[::-1]
        bucket = (padded_side(width, self.multiple), padded_side(height, self.multiple))
        return Frame((width, height), bucket, (width, height), (0, 0), f"{PAD}{self.multiple}", True)


def size_rule(name: str, **options: Any) -> SizeRule:
    """Map the name of a rule and its options to the rule; raises ValueError for an unknown name."""
    if name != "exact":
        raise ValueError(f"the rule is {name!r}; it must be exact")
    return Exact(options["multiple"])


def fit(pixels: Pixels, frame: Frame) -> Pixels:
    """Map pixels, uint8 (H,W,3), to those of the frame's bucket."""
    padded = pad_to_multiple(pixels, int(frame.filter.removeprefix(PAD)))
    if padded.shape[:2] != frame.bucket[::-1]:
        raise ValueError(f"the image is {pixels.shape[1]}x{pixels.shape[0]}; the plan has {frame.original}")
    return padded
