# SPDX-License-Identifier: Apache-2.0
"""The files that latentwire reads and writes, by format and by the end of their names."""

from enum import StrEnum


class ImageFormat(StrEnum):
    """The image formats that are written."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    AVIF = "avif"

    @property
    def suffix(self) -> str:
        """The end of a file name of this format, with its dot."""
        return ".jpg" if self is ImageFormat.JPEG else f".{self}"

    @property
    def pillow_name(self) -> str:
        """The format's name in Pillow."""
        return self.upper()


# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
))
# fmt: on
"""Names that end so, in any case, are taken for images; other files of a folder are not looked at."""
LATENT_SUFFIXES = frozenset((".safetensors",))
PAYLOAD_SUFFIXES = frozenset((".lat",))
