# SPDX-License-Identifier: Apache-2.0
"""The size of an image -> its frame, by the aspect ratio buckets of the DreamBooth examples of diffusers.

Source: huggingface/diffusers (58eb52c), `src/diffusers/training_utils.py` and
`examples/dreambooth/train_dreambooth_lora_flux2_klein.py`.
"""

from dataclasses import dataclass

from latentwire_cache.buckets.fitting import BILINEAR
from latentwire_cache.buckets.frame import Frame, Size, cut, square, upright

RATIOS = ((1, 1), (4, 5), (5, 4), (2, 3), (3, 2), (3, 4), (4, 3), (9, 16), (16, 9), (1, 2), (2, 1))
"""Width to height, in the order of diffusers: of equals, the last is taken."""


@dataclass(frozen=True)
class Diffusers:
    """The buckets of `--use_aspect_ratio_buckets` with `--center_crop`; EXIF is applied.

    Attributes:
        resolution: (side, side) of the largest area; a smaller image gets buckets of its own area.
        divisibility: what the sides of a bucket are multiples of.
    """

    resolution: Size
    divisibility: int = 16

    def __post_init__(self) -> None:
        """Check the options; raises ValueError."""
        if min(square(self.resolution, "diffusers"), self.divisibility) < 1:
            raise ValueError("the resolution and divisibility must be at least 1")

    def frame(self, header_size: Size, orientation: int) -> Frame:
        """Map the size in the file's header, turned as the orientation says, to a frame."""
        width, height = size = upright(header_size, orientation)
        buckets = self.buckets(min(self.resolution[0], round((height * width) ** 0.5)))
        nearest = min(abs(height * bucket[0] - width * bucket[1]) for bucket in buckets)
        bucket = [each for each in buckets if abs(height * each[0] - width * each[1]) == nearest][-1]
        scale = max(bucket[1] / height, bucket[0] / width)
        resized = (round(width * scale), round(height * scale))
        return cut(size, bucket, resized, BILINEAR, applies_exif=True, to_even=True)

    def buckets(self, side: int) -> list[Size]:
        """Return the sizes of the buckets whose area is near to side * side."""
        step = self.divisibility
        sizes = []
        for across, down in RATIOS:
            ratio = across / down
            height = (side * side / ratio) ** 0.5
            sizes.append((max(step, round(height * ratio / step) * step), max(step, round(height / step) * step)))
        return list(dict.fromkeys(sizes))
