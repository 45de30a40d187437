# SPDX-License-Identifier: Apache-2.0
"""The size of an image -> its frame, by the rule of SimpleTuner, which ignores EXIF.

Source: bghira/SimpleTuner (bc8e6ab), `simpletuner/helpers/multiaspect/image.py` and
`simpletuner/helpers/image_manipulation/training_sample.py` and `load.py`.
"""

from dataclasses import dataclass
from math import sqrt

from latentwire_cache.buckets.fitting import LINEAR
from latentwire_cache.buckets.frame import Frame, Size, cut, square

RATIO_DIGITS = 2
"""The ratio of an image is rounded before anything else."""
RESOLUTION_TYPES = ("pixel", "pixel_area")
# The megapixels that SimpleTuner reads as the square of a round number of pixels.
_ROUND_AREAS = {0.25: 512, 0.5: 768, 1.0: 1024, 2.0: 1536, 4.0: 2048}


@dataclass(frozen=True)
class SimpleTuner:
    """The sizes of a data set of SimpleTuner with `crop_style: center`; the options have SimpleTuner's names.

    SimpleTuner decodes and scales by its package trainingsample: the decoder leaves the orientation away before
    SimpleTuner could apply it, and the filter is OpenCV's INTER_LINEAR.

    SimpleTuner keeps the first size it meets for each rounded ratio; where two images of one ratio would get different
    sizes, its choice depends on the order in which it meets them, and this rule gives each its own.

    Attributes:
        resolution: (side, side) in pixels.
        resolution_type: `pixel`: the side is the shorter side; `pixel_area`: the side's square is the area.
        crop: whether each image becomes a square, as with `crop: true` and `crop_aspect: square`.
        aspect_bucket_alignment: what the sides are multiples of: 64, or what the model asks for.
    """

    resolution: Size
    resolution_type: str = "pixel_area"
    crop: bool = False
    aspect_bucket_alignment: int = 64

    def __post_init__(self) -> None:
        """Check the options; raises ValueError."""
        if self.resolution_type not in RESOLUTION_TYPES:
            raise ValueError(
                f"resolution_type is {self.resolution_type!r}; it must be one of {', '.join(RESOLUTION_TYPES)}"
            )
        if min(square(self.resolution, "simpletuner"), self.aspect_bucket_alignment) < 1:
            raise ValueError("the resolution and aspect_bucket_alignment must be at least 1")

    def frame(self, header_size: Size, orientation: int) -> Frame:
        """Map the size in the file's header to a frame; the orientation is ignored."""
        size = header_size
        ratio = 1.0 if self.crop else round(size[0] / size[1], RATIO_DIGITS)
        if ratio <= 0:
            raise ValueError(f"the image is {size[0]}x{size[1]}; its ratio is 0 to {RATIO_DIGITS} digits")
        sizes = self._by_side if self.resolution_type == "pixel" else self._by_area
        bucket, resized = sizes(size, ratio)
        if self.crop or round(bucket[0] / bucket[1], RATIO_DIGITS) == 1.0:
            side = self._square_side()
            bucket = (side, side)
            if resized[0] < side:
                resized = bucket
        return cut(size, bucket, resized, LINEAR, applies_exif=False)

    def _aligned(self, side: float) -> int:
        return max(round(side / self.aspect_bucket_alignment), 1) * self.aspect_bucket_alignment

    def _square_side(self) -> int:
        side = self.resolution[0]
        if self.resolution_type == "pixel":
            return side
        megapixels = side * side / 1e6
        rounded = [each for area, each in _ROUND_AREAS.items() if abs(megapixels - area) < 0.05]
        return self._aligned(rounded[0] if rounded else sqrt(megapixels * 1e6))

    def _by_side(self, size: Size, ratio: float) -> tuple[Size, Size]:
        """Return the bucket, and the size of the image's own ratio that covers it; the shorter side is given."""
        side, own = self.resolution[0], size[0] / size[1]
        wanted = (side, int(side / ratio)) if own < 1 else (int(side * ratio), side)
        bucket = (self._aligned(wanted[0]), self._aligned(wanted[1]))
        if own >= 1:
            height = max(bucket[1], wanted[1])
            resized = (int(height * own), height)
            if resized[0] < bucket[0]:
                resized = (bucket[0], int(bucket[0] / own))
        else:
            width = max(bucket[0], wanted[0])
            resized = (width, int(width / own))
            if resized[1] < bucket[1]:
                resized = (int(bucket[1] * own), bucket[1])
        return bucket, resized

    def _by_area(self, size: Size, ratio: float) -> tuple[Size, Size]:
        """Return the bucket, and the size of the image's own ratio that covers it; the area is given."""
        # SimpleTuner holds the area in megapixels; the way there and back may round.
        edge = self._aligned(int(sqrt(self.resolution[0] ** 2 / 1e6 * 1e6)))
        if ratio == 1.0 and size[0] == size[1]:
            return (edge, edge), (edge, edge)
        own = size[0] / size[1]
        bucket = (self._aligned(edge * sqrt(ratio)), self._aligned(edge / sqrt(ratio)))
        if bucket[0] < bucket[1]:
            width, height = bucket[0], int(bucket[0] / own)
        else:
            width, height = int(bucket[1] * own), bucket[1]
        if bucket[0] > width:
            missing = bucket[0] - width
            width, height = bucket[0], height + int(missing / own)
        elif bucket[1] > height:
            missing = bucket[1] - height
            width, height = width + int(missing * own), bucket[1]
        return bucket, (width, height)
