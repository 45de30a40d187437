# SPDX-License-Identifier: Apache-2.0
"""The size of an image -> its frame where no trainer's buckets are asked for: ADM's centre crop, or no scaling."""

from dataclasses import dataclass

from latentwire_cache.buckets.fitting import ADM, PAD
from latentwire_cache.buckets.frame import Frame, Size, cut, square, upright
from latentwire_codec.images.geometry import padded_side


@dataclass(frozen=True)
class ImageNet:
    """The centre crop of ADM, that DiT, SiT, LightningDiT, REPA and EDM2 use on ImageNet; EXIF is ignored.

    Attributes:
        resolution: (side, side) of every image.

    Source: openai/guided-diffusion, `guided_diffusion/image_datasets.py` (center_crop_arr).
    """

    resolution: Size

    def __post_init__(self) -> None:
        """Check the resolution; raises ValueError."""
        if square(self.resolution, "imagenet") < 1:
            raise ValueError("the resolution must be at least 1")

    def frame(self, header_size: Size, orientation: int) -> Frame:
        """Map the size in the file's header to a frame; the orientation is ignored."""
        side = self.resolution[0]
        width, height = header_size
        while min(width, height) >= 2 * side:
            width, height = width // 2, height // 2
        scale = side / min(width, height)
        resized = (round(width * scale), round(height * scale))
        return cut(header_size, (side, side), resized, ADM, applies_exif=False)


@dataclass(frozen=True)
class Exact:
    """No scaling: an upright image is padded to multiples of the VAE's downsampling factor, as `encode` does.

    Attributes:
        multiple: the downsampling factor.
    """

    multiple: int

    def frame(self, header_size: Size, orientation: int) -> Frame:
        """Map the size in the file's header, turned as the orientation says, to a frame."""
        width, height = size = upright(header_size, orientation)
        bucket = (padded_side(width, self.multiple), padded_side(height, self.multiple))
        return Frame(size, bucket, size, (0, 0), f"{PAD}{self.multiple}", applies_exif=True)
