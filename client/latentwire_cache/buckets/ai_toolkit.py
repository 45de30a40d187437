# SPDX-License-Identifier: Apache-2.0
"""The size of an image -> its frame, by the rule of ai-toolkit, which never enlarges the area and applies EXIF.

Source: ostris/ai-toolkit (27a03a9), `toolkit/buckets.py` and `toolkit/dataloader_mixins.py`.
"""

import math
from dataclasses import dataclass

from latentwire_cache.buckets.fitting import BICUBIC
from latentwire_cache.buckets.frame import Frame, Size, cut, square, upright


@dataclass(frozen=True)
class AiToolkit:
    """The buckets of ai-toolkit; `bucket_tolerance` has ai-toolkit's default.

    Attributes:
        resolution: (side, side) of the largest area.
        bucket_tolerance: what the sides of a bucket are multiples of.
    """

    resolution: Size
    bucket_tolerance: int = 64

    def __post_init__(self) -> None:
        """Check the options; raises ValueError."""
        if min(square(self.resolution, "ai-toolkit"), self.bucket_tolerance) < 1:
            raise ValueError("the resolution and bucket_tolerance must be at least 1")

    def frame(self, header_size: Size, orientation: int) -> Frame:
        """Map the size in the file's header, turned as the orientation says, to a frame."""
        width, height = size = upright(header_size, orientation)
        bucket = self._bucket(width, height)
        scale = max(bucket[0] / width, bucket[1] / height)
        resized = (math.ceil(width * scale), math.ceil(height * scale))
        return cut(size, bucket, resized, BICUBIC, applies_exif=True)

    def _bucket(self, width: int, height: int) -> Size:
        """Choose among the four roundings of the scaled size the one whose area is nearest and not above the limit."""
        step, limit = self.bucket_tolerance, self.resolution[0] ** 2
        area = min(width * height, limit)
        scale = (area / (width * height)) ** 0.5
        across, down = width * scale / step, height * scale / step
        candidates = [
            (each_across * step, each_down * step)
            for each_across in (math.floor(across), math.ceil(across))
            for each_down in (math.floor(down), math.ceil(down))
        ]
        within = [each for each in candidates if min(each) > 0 and each[0] * each[1] <= limit]
        if not within:
            within = [(max(step, math.floor(across) * step), max(step, math.floor(down) * step))]
        return min(within, key=lambda each: abs(each[0] * each[1] - area))
