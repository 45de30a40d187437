# SPDX-License-Identifier: Apache-2.0
"""The size of an image -> a frame: how the image becomes pixels for the VAE."""

from dataclasses import dataclass
from typing import Protocol

Size = tuple[int, int]
"""(width, height)."""

MAX_RESIZED_PIXELS = 2**27
"""A resized image of this many pixels takes 400 MB."""


@dataclass(frozen=True)
class Frame:
    """How one image becomes pixels for the VAE; sizes are (width, height).

    Attributes:
        original: the size as the trainer sees it: turned by EXIF only where the trainer turns it.
        bucket: the size that is encoded.
        resized: the size to which the image is scaled first; at least the bucket's, but for `exact`.
        crop: the left and the top of the bucket in the resized image.
        filter: how the image is scaled, as `fit` knows it.
        applies_exif: whether the trainer turns the image as its EXIF orientation says.
    """

    original: Size
    bucket: Size
    resized: Size
    crop: tuple[int, int]
    filter: str
    applies_exif: bool


class SizeRule(Protocol):
    """A trainer's choice of sizes."""

    def frame(self, header_size: Size, orientation: int) -> Frame:
        """Map an image to its frame.

        Args:
            header_size: (width, height) as the file's header states it.
            orientation: the EXIF orientation, 1 to 8; 1 where the file has none.

        Raises:
            ValueError: the trainer cannot use an image of this size.
        """
        ...


def upright(header_size: Size, orientation: int) -> Size:
    """Map the size in a header to the size after the turn that the EXIF orientation asks for."""
    return header_size[::-1] if 5 <= orientation <= 8 else header_size


def cut(
    original: Size, bucket: Size, resized: Size, scaling: str, *, applies_exif: bool, to_even: bool = False
) -> Frame:
    """Return the frame that takes the centre of the resized image.

    Args:
        original: see `Frame`.
        bucket: see `Frame`.
        resized: see `Frame`.
        scaling: see `Frame.filter`.
        applies_exif: see `Frame`.
        to_even: whether an odd surplus is halved to the even neighbour, as torchvision does, instead of downward.

    Raises:
        ValueError: the resized image is smaller than the bucket, or too large to be made.
    """
    surplus = (resized[0] - bucket[0], resized[1] - bucket[1])
    if min(surplus) < 0 or min(bucket) < 1:
        raise ValueError(f"the image is {_text(original)}; it becomes {_text(resized)}, less than {_text(bucket)}")
    if resized[0] * resized[1] > MAX_RESIZED_PIXELS:
        raise ValueError(
            f"the image is {_text(original)}; to cover {_text(bucket)} it would be scaled to {_text(resized)}, "
            f"more than {MAX_RESIZED_PIXELS} pixels; leave it out"
        )
    left, top = (round(each / 2) if to_even else each // 2 for each in surplus)
    return Frame(original, bucket, resized, (left, top), scaling, applies_exif)


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def square(resolution: Size, rule: str) -> int:
    """Map (width, height) to the side; raises ValueError where they differ."""
    if resolution[0] != resolution[1]:
        raise ValueError(f"{rule} takes one number as its resolution, not {_text(resolution)}")
    return resolution[0]
