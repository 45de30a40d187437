# SPDX-License-Identifier: Apache-2.0
"""The size of an image -> its frame, by the rules of kohya's sd-scripts and musubi-tuner; both ignore EXIF.

Sources: kohya-ss/sd-scripts (48d368f), `library/train_util.py` (BucketManager) and `library/model_util.py`;
kohya-ss/musubi-tuner (30c658c), `src/musubi_tuner/dataset/bucket.py` and `media_utils.py`.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from latentwire_cache.buckets.fitting import AREA, LANCZOS
from latentwire_cache.buckets.frame import Frame, Size, cut


@dataclass(frozen=True)
class Kohya:
    """The buckets of sd-scripts; the options have sd-scripts' names and defaults.

    Attributes:
        resolution: (width, height), whose product is the area of the buckets.
        enable_bucket: False: every image gets the size `resolution`.
        bucket_no_upscale: whether each image keeps its size, floored to the steps, unless it is larger than the area.
        min_bucket_reso: the shortest side of a bucket.
        max_bucket_reso: the longest side of a bucket.
        bucket_reso_steps: what the sides of a bucket are multiples of.
    """

    resolution: Size
    enable_bucket: bool = True
    bucket_no_upscale: bool = False
    min_bucket_reso: int = 256
    max_bucket_reso: int = 1024
    bucket_reso_steps: int = 64

    def __post_init__(self) -> None:
        """Refuse what sd-scripts refuses; raises ValueError."""
        if min(*self.resolution, self.bucket_reso_steps, self.min_bucket_reso) < 1:
            raise ValueError("the resolution, min_bucket_reso and bucket_reso_steps must be at least 1")
        if self.enable_bucket and min(self.resolution) < self._shortest:
            raise ValueError(
                f"min_bucket_reso is {self._shortest}; it must be at most the resolution's shorter side, "
                f"{min(self.resolution)}"
            )
        if self.enable_bucket and max(self.resolution) > self._longest:
            raise ValueError(
                f"max_bucket_reso is {self._longest}; it must be at least the resolution's longer side, "
                f"{max(self.resolution)}"
            )

    def frame(self, header_size: Size, orientation: int) -> Frame:
        """Map the size in the file's header to a frame; the orientation is ignored."""
        width, height = header_size
        if self.enable_bucket and self.bucket_no_upscale:
            resized = self._kept(width, height)
            step = self.bucket_reso_steps
            bucket = (resized[0] - resized[0] % step, resized[1] - resized[1] % step)
            if min(bucket) < step:
                raise ValueError(f"the image is {width}x{height}; without enlarging, each side needs {step} pixels")
        else:
            bucket = self._nearest(header_size)
            # The side that the bucket cuts less of is scaled to fit.
            wider = width / height > bucket[0] / bucket[1]
            scale = bucket[1] / height if wider else bucket[0] / width
            resized = (int(width * scale + 0.5), int(height * scale + 0.5))
        shrinks = width >= resized[0] and height >= resized[1]
        return cut(header_size, bucket, resized, AREA if shrinks else LANCZOS, applies_exif=False)

    @property
    def _shortest(self) -> int:
        return self.min_bucket_reso - self.min_bucket_reso % self.bucket_reso_steps

    @property
    def _longest(self) -> int:
        return -(-self.max_bucket_reso // self.bucket_reso_steps) * self.bucket_reso_steps

    @cached_property
    def buckets(self) -> tuple[Size, ...]:
        """The sizes of the buckets, sorted; with `bucket_no_upscale` they are not used."""
        if not self.enable_bucket:
            return (self.resolution,)
        step, area = self.bucket_reso_steps, self.resolution[0] * self.resolution[1]
        side = int(math.sqrt(area) // step) * step
        sizes = {(side, side)}
        for width in range(self._shortest, self._longest + 1, step):
            # A minimum below one step becomes 0, by which sd-scripts would divide.
            height = min(self._longest, area // width // step * step) if width else 0
            if width and height >= self._shortest:
                sizes |= {(width, height), (height, width)}
        return tuple(sorted(sizes))

    def _nearest(self, size: Size) -> Size:
        if size in self.buckets:
            return size
        ratio = size[0] / size[1]
        return min(self.buckets, key=lambda bucket: abs(bucket[0] / bucket[1] - ratio))

    def _kept(self, width: int, height: int) -> Size:
        """Return the image's size, or where the image is larger than the area, a smaller size of its ratio."""
        area = self.resolution[0] * self.resolution[1]
        if width * height <= area:
            return width, height
        ratio = width / height
        exact_width = math.sqrt(area * ratio)
        by_width = self._rounded(exact_width)
        by_height = self._rounded(area / exact_width)
        # One side is brought to a step: the one that leaves the ratio nearer to the image's.
        other_height, other_width = self._rounded(by_width / ratio), self._rounded(by_height * ratio)
        if min(by_width, by_height, other_height, other_width) < 1:
            raise ValueError(f"the image is {width}x{height}: too long for buckets of {self.bucket_reso_steps} pixels")
        if abs(by_width / other_height - ratio) < abs(other_width / by_height - ratio):
            return by_width, int(by_width / ratio + 0.5)
        return int(by_height * ratio + 0.5), by_height

    def _rounded(self, side: float) -> int:
        nearest = int(side + 0.5)
        return nearest - nearest % self.bucket_reso_steps


MUSUBI_STEP = 16


@dataclass(frozen=True)
class Musubi:
    """The buckets of musubi-tuner for images; the options have its names.

    Attributes:
        resolution: (width, height), whose product is the area of the buckets.
        enable_bucket: False: every image gets the size `resolution`.
        bucket_no_upscale: whether an image within the area keeps its size, floored to multiples of 16.
    """

    resolution: Size
    enable_bucket: bool = True
    bucket_no_upscale: bool = False

    def __post_init__(self) -> None:
        """Refuse an area that has no bucket; raises ValueError."""
        if math.isqrt(self.resolution[0] * self.resolution[1]) < 2 * MUSUBI_STEP:
            raise ValueError(
                f"the resolution is {self.resolution[0]}x{self.resolution[1]}; musubi-tuner needs 32x32 at least"
            )

    def frame(self, header_size: Size, orientation: int) -> Frame:
        """Map the size in the file's header to a frame; the orientation is ignored."""
        width, height = header_size
        bucket = self._bucket(width, height)
        if min(bucket) < 1:
            raise ValueError(f"the image is {width}x{height}; without enlarging, each side needs {MUSUBI_STEP} pixels")
        scale = max(bucket[0] / width, bucket[1] / height)
        resized = (int(width * scale + 0.5), int(height * scale + 0.5))
        return cut(header_size, bucket, resized, LANCZOS if scale > 1 else AREA, applies_exif=False)

    @cached_property
    def buckets(self) -> tuple[Size, ...]:
        """The sizes of the buckets, sorted."""
        if not self.enable_bucket:
            return (self.resolution,)
        area = self.resolution[0] * self.resolution[1]
        side = math.isqrt(area)
        sizes: set[Size] = set()
        for width in range(_floor(side // 2), side + MUSUBI_STEP, MUSUBI_STEP):
            height = _floor(area // width)
            sizes |= {(width, height), (height, width)}
        return tuple(sorted(sizes))

    def _bucket(self, width: int, height: int) -> Size:
        area = self.resolution[0] * self.resolution[1]
        if self.enable_bucket and self.bucket_no_upscale and width * height <= area:
            return _floor(width), _floor(height)
        ratio = width / height
        return min(self.buckets, key=lambda bucket: abs(bucket[0] / bucket[1] - ratio))


def _floor(side: int) -> int:
    return side - side % MUSUBI_STEP
