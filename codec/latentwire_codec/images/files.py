# SPDX-License-Identifier: Apache-2.0
"""The bytes of an image file -> uint8 RGB pixels `(H, W, 3)`.

    bytes -> format by signature -> size and structure (structure.py) -> decode
          -> what it shows: opaque sRGB, upright (core's srgb.py) -> pixels

Files come from anyone. Only the decoders named in `READABLE_FORMATS` are ever reached, nothing is decoded before its
size is known, and every exception of Pillow becomes an `ImageError`.
"""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from latentwire_codec.images import boxes, structure
from latentwire_codec.images.geometry import Pixels
from latentwire_core.colour.srgb import check_samples, exif_profile, orientation, shown
from latentwire_core.errors import ImageError, ImageTooLarge

# The signature and the Pillow plugin of each format. The plugins are called directly, because Image.open applies a
# limit of the whole process before this module sees the width and the height.
_FORMATS: dict[str, tuple[re.Pattern[bytes], Callable[[io.BytesIO], ImageFile.ImageFile]]] = {
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    "JPEG": (re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    "WEBP": (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    "AVIF": (re.compile(rb"....ftyp(avif|avis|mif1|msf1)", re.DOTALL), AvifImagePlugin.AvifImageFile),
    "TIFF": (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
    "GIF": (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    "BMP": (re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    "PPM": (re.compile(rb"P[1-6f]\s"), PpmImagePlugin.PpmImageFile),
}

READABLE_FORMATS = tuple(_FORMATS)
"""Formats that `read_image` accepts, by Pillow's names."""

_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 322, 323


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is decoded.

    Attributes:
        max_side: the longer side at most, in pixels.
        max_pixels: width times height at most; by default, an image that fits a 64 MiB message as raw RGB.

    Raises:
        ValueError: a limit is below 1.
    """

    max_side: int = 8192
    max_pixels: int = 22_369_621

    def __post_init__(self) -> None:
        for name, value in (("max_side", self.max_side), ("max_pixels", self.max_pixels)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be >= 1")

    def check(self, width: int, height: int) -> None:
        """Refuse a width and height, in pixels: raises ImageTooLarge over a limit, ImageError below 1."""
        if min(width, height) < 1:
            raise ImageError(f"image is {width}x{height}; each side must be at least 1")
        if max(width, height) > self.max_side:
            raise ImageTooLarge(f"image is {width}x{height}; each side must be <= {self.max_side} (serve --max-side)")
        if width * height > self.max_pixels:
            raise ImageTooLarge(
                f"image has {width * height} pixels ({width}x{height}); at most "
                f"{self.max_pixels} are accepted (serve --max-message-mib)"
            )


DEFAULT_LIMITS = ImageLimits()


def read_image(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Pixels:
    """Map an image file to its first frame as RGB pixels, upright, opaque and in sRGB.

    - EXIF (or XMP) orientation is applied; unreadable EXIF counts as upright.
    - Transparency of every kind is composited over white.
    - 1-bit, grey, palette, CMYK, YCbCr and Lab are converted; CMYK without a profile by the plain formula
      `255 - min(255, ink + black)`.
    - 16-bit grey is scaled to 8 bits and rounded; 16-bit RGB keeps its upper bytes, and so does a PNG's transparent
      colour.
    - An embedded ICC profile is converted to sRGB, perceptually. A profile that is sRGB under another name changes
      nothing, bit for bit. A profile that is broken, or of another kind than the pixels, is ignored.
    - Without a profile, the code points of AVIF and PNG (cICP, which stands over a profile) and Exif's Adobe RGB are
      honoured. All other pixels are taken as sRGB; gamma chunks are not looked at.
    - The part of a GIF that its first frame does not cover is white. Alpha that is 0 everywhere in a BMP is no alpha.

    Args:
        data: the whole file, in one of `READABLE_FORMATS`.
        limits: the largest image to decode.

    Returns:
        uint8 `(H, W, 3)` RGB, C-contiguous and owning its memory.

    Raises:
        ImageTooLarge: the header announces more than `limits` allow; nothing was decoded.
        ImageError: empty, not an image, damaged, truncated, or of a kind that is not supported (floating point samples;
            TIFF with 32-bit grey beyond 16 bits; run-length BMP; PPM as text or with an unusual maximum; HDR; a raw
            file of a camera; a preview in the image's place), or with more structure than `structure.py` allows.
    """
    return open_image(data, limits).read()


class OpenedImage:
    """An image file whose header is read and checked, and none of its pixels; `open_image` makes it."""

    def __init__(self, name: str, data: bytes, limits: ImageLimits) -> None:
        self._errors = partial(_image_errors, name, data, limits)
        with self._errors():
            self._image = _open(name, data, limits)
            self._png_depth = data[24] if name == "PNG" else None

    @property
    def size(self) -> tuple[int, int]:
        """The width and height before `orientation` is applied."""
        return self._image.size

    @property
    def orientation(self) -> int:
        """The EXIF orientation that the pixels still need, 1..8; 1 is upright."""
        with self._errors():
            return orientation(self._image)

    def read(self, upright: bool = True) -> Pixels:
        """Decode the pixels, as `read_image` does; `upright` tells whether the orientation is applied."""
        with self._errors():
            return np.array(shown(self._image, self._png_depth, upright))


def open_image(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> OpenedImage:
    """Read the header of an image file, so that its size is known before its pixels take memory.

    Raises:
        ImageTooLarge, ImageError: as `read_image` does, as far as the header tells.
    """
    if not data:
        raise ImageError("the image is empty (0 bytes); send the whole file")
    name = next((name for name, (signature, _) in _FORMATS.items() if signature.match(data)), None)
    if name is None:
        raise ImageError(
            f"the {len(data)} bytes starting with {data[:8].hex(' ')} are not an image that can be read; send one of "
            f"{', '.join(READABLE_FORMATS)}"
        )
    return OpenedImage(name, data, limits)


@contextmanager
def _image_errors(name: str, data: bytes, limits: ImageLimits) -> Iterator[None]:
    """Turn whatever goes wrong with a file of a format into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # A plugin raises it for a part that is larger than the image, such as a GIF frame larger than its screen. Its
        # text has the number of pixels, not the sides.
        count = re.search(r"\((\d+) pixels\)", str(error))
        accepted = min(limits.max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or limits.max_pixels))
        raise ImageTooLarge(
            f"image has {count[1] if count else 'too many'} pixels; at most {accepted} are accepted (serve "
            "--max-message-mib)"
        ) from error
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        raise ImageError(
            f"the {name} file of {len(data)} bytes cannot be read: {str(error) or type(error).__name__}; it is "
            "truncated, damaged, or of an unsupported kind (save it again as 8-bit PNG)"
        ) from error


def _open(name: str, data: bytes, limits: ImageLimits) -> ImageFile.ImageFile:
    """Map a file and its format to Pillow's image: header read, size checked, no pixel decoded."""
    # Pillow's WebP plugin allocates the canvas when it opens the file; its PNG plugin refuses 0x0 without a reason.
    size = {"WEBP": _webp_size, "PNG": _png_size}.get(name, lambda _: None)(data)
    if size is not None:
        limits.check(*size)
    checked = structure.check(name, data)
    image = _FORMATS[name][1](io.BytesIO(checked.data))
    limits.check(*image.size)
    boxes.check_frames(checked.frames, *image.size)
    profile = _profile(name, image, checked)
    if profile is not None:
        image.info["icc_profile"] = profile
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_tiles(image, limits)
    if any(tile.codec_name in Image.DECODERS for tile in image.tile):
        # Decoders written in Python take 4 s a megapixel and hold the interpreter lock; the decoder of PPM as text is
        # quadratic in the length of its comments.
        raise ImageError(
            f"the {name} file is of a kind that decodes too slowly to be served (run-length BMP, PPM as text or with a "
            "maximum other than 255); save it as PNG"
        )
    check_samples(image)
    return image


def _check_tiles(image: TiffImagePlugin.TiffImageFile, limits: ImageLimits) -> None:
    """Refuse tiles that are much larger than the image: libtiff decodes whole tiles, also beyond the image's edges."""
    width, height = (image.tag_v2.get(tag, 1) for tag in (_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH))
    if min(width, height) < 1:
        raise ImageError(f"image has tiles of {width}x{height}; each side must be at least 1 (save the TIFF again)")
    padded = -(-image.width // width) * width * -(-image.height // height) * height
    if padded > max(limits.max_pixels, 4 * image.width * image.height):
        raise ImageTooLarge(
            f"image has tiles of {width}x{height}, together {padded} pixels for {image.width}x{image.height}; at most "
            f"{limits.max_pixels} are accepted (save the TIFF with tiles of 512x512)"
        )


def _profile(name: str, image: Image.Image, checked: structure.Checked) -> bytes | None:
    """Return the ICC profile of an image where Pillow does not find it, or the file says its colours otherwise."""
    own = checked.icc or image.info.get("icc_profile")
    # PNG's third edition: cICP stands over iCCP; in AVIF a profile stands over code points.
    if checked.colours is not None and (name == "PNG" or own is None):
        return checked.colours.profile()
    return exif_profile(image) if own is None else checked.icc


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Map a PNG file to the width and height of its IHDR chunk; None where it has no such chunk."""
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Map a WebP file to width and height of its canvas (RFC 9649); None for an unknown kind."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        bits = int.from_bytes(data[26:30], "little")
        return bits & 0x3FFF, bits >> 16 & 0x3FFF
    return None
