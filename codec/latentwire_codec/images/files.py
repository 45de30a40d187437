# SPDX-License-Identifier: Apache-2.0
"""Image file bytes -> uint8 RGB pixels `(H, W, 3)`, and pixels -> image file bytes.

    bytes -> format by signature -> size check on the header -> decode
          -> opaque sRGB (colour.py) -> EXIF orientation -> pixels

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
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from latentwire_codec.images.colour import to_opaque_srgb
from latentwire_codec.images.geometry import Pixels, check_pixels
from latentwire_core.errors import ImageError, ImageTooLarge
from latentwire_core.formats import ImageFormat

# Signature and reader of each format. The plugins are called directly: Image.open would refuse large images by a limit
# of the whole process, before this module sees their width and height.
_FORMATS: dict[str, tuple[re.Pattern[bytes], Callable[[io.BytesIO], ImageFile.ImageFile]]] = {
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    "JPEG": (re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    "WEBP": (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    "AVIF": (
        re.compile(rb"....ftyp(avif|avis|mif1|msf1)", re.DOTALL),
        AvifImagePlugin.AvifImageFile,
    ),
    "TIFF": (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
    "GIF": (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    "BMP": (re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    "PPM": (re.compile(rb"P[1-6f]\s"), PpmImagePlugin.PpmImageFile),
}

READABLE_FORMATS = tuple(_FORMATS)
"""Formats that `read_image` accepts, by Pillow's names."""

_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 322, 323
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,  # counter-clockwise in Pillow: a quarter turn to the right
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
        """Refuse a width and height, in pixels, that are over a limit.

        Raises:
            ImageTooLarge: they are over a limit.
            ImageError: one is below 1.
        """
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
    - 1-bit, grey, palette, CMYK, YCbCr and Lab are converted; CMYK without a profile by the plain
      formula `255 - min(255, ink + black)`.
    - 16-bit grey is scaled to 8 bits and rounded; of 16-bit RGB the upper bytes are taken, and so
      is a PNG's transparent colour.
    - An embedded ICC profile is converted to sRGB, perceptually. A profile that is broken, or of
      another kind than the pixels, is ignored and the pixels are taken as sRGB, as they are
      without one; gamma chunks are not looked at. A profile that is sRGB under another name
      changes nothing, bit for bit.

    Args:
        data: the whole file, in one of `READABLE_FORMATS`.
        limits: the largest image to decode.

    Returns:
        uint8 `(H, W, 3)` RGB, C-contiguous and owning its memory.

    Raises:
        ImageTooLarge: the header announces more than `limits` allow; nothing was decoded.
        ImageError: empty, not an image, damaged, truncated, or of a kind that is not supported
            (floating point samples; TIFF with 32-bit grey beyond 16 bits; run-length BMP; PPM as
            text or with an unusual maximum).
    """
    return open_image(data, limits).read()


class OpenedImage:
    """An image file whose header is read and checked, and none of its pixels; `open_image` makes it."""

    def __init__(self, name: str, data: bytes, limits: ImageLimits) -> None:
        self._errors = partial(_image_errors, name, data, limits)
        self._png_depth = data[24] if name == "PNG" else None
        with self._errors():
            self._image = _open(name, data, limits)

    @property
    def size(self) -> tuple[int, int]:
        """The width and height as stored, before the orientation is applied."""
        return self._image.size

    def read(self) -> Pixels:
        """Decode the pixels, as `read_image` does."""
        with self._errors():
            self._image.load()
            rgb = to_opaque_srgb(self._image, png_depth=self._png_depth)
            transposition = _TRANSPOSITIONS.get(_orientation(self._image))
            return np.array(rgb if transposition is None else rgb.transpose(transposition))


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
            f"the {len(data)} bytes starting with {data[:8].hex(' ')} are not an image that can "
            f"be read; send one of {', '.join(READABLE_FORMATS)}"
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
        # Raised inside a plugin, for what an image says of itself beside its size (a GIF frame
        # larger than its screen); the sides are lost, the count is in the text.
        count = re.search(r"\((\d+) pixels\)", str(error))
        accepted = min(limits.max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or limits.max_pixels))
        raise ImageTooLarge(
            f"image has {count[1] if count else 'too many'} pixels; at most {accepted} are "
            "accepted (serve --max-message-mib)"
        ) from error
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        raise ImageError(
            f"the {name} file of {len(data)} bytes cannot be read: "
            f"{str(error) or type(error).__name__}; it is truncated, damaged, or of an unsupported "
            "kind (save it again as 8-bit PNG)"
        ) from error


def _open(name: str, data: bytes, limits: ImageLimits) -> ImageFile.ImageFile:
    """Map a file and its format to Pillow's image: header read, size checked, no pixel decoded."""
    # Pillow's WebP plugin allocates the canvas when it opens the file; its PNG plugin refuses 0x0 without a reason.
    size = {"WEBP": _webp_size, "PNG": _png_size}.get(name, lambda _: None)(data)
    if size is not None:
        limits.check(*size)
    image = _FORMATS[name][1](io.BytesIO(data))
    limits.check(*image.size)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # libtiff decodes whole tiles, however small the image that is cut from them.
        tile = image.tag_v2.get(_TIFF_TILE_WIDTH, 1) * image.tag_v2.get(_TIFF_TILE_LENGTH, 1)
        if tile > limits.max_pixels:
            raise ImageTooLarge(
                f"image has tiles of {tile} pixels; at most {limits.max_pixels} are accepted "
                "(save the TIFF with tiles of 512x512)"
            )
    if any(tile.codec_name in Image.DECODERS for tile in image.tile):
        # Decoders written in Python take 4 s a megapixel and hold the interpreter lock; the decoder of PPM as text is
        # quadratic in the length of its comments.
        raise ImageError(
            f"the {name} file is of a kind that decodes too slowly to be served (run-length BMP, "
            "PPM as text or with a maximum other than 255); save it as PNG"
        )
    if image.mode == "F":
        raise ImageError(
            f"the {name} file has floating point samples, whose white is not defined; scale them "
            "to 8 bits, or send a raw tensor"
        )
    return image


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Map a PNG file to the width and height of its IHDR chunk; None where it has no such chunk."""
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Map a WebP file to width and height of its canvas (RFC 9649); None for an unknown kind."""
    kind = data[12:16]
    if kind == b"VP8X":
        return (
            int.from_bytes(data[24:27], "little") + 1,
            int.from_bytes(data[27:30], "little") + 1,
        )
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        bits = int.from_bytes(data[26:30], "little")
        return bits & 0x3FFF, bits >> 16 & 0x3FFF
    return None


def _orientation(image: Image.Image) -> int:
    """Map a decoded image to its EXIF orientation; 1 (upright) where none can be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken metadata is no reason to refuse good pixels
        return 1


# Measured on a 512x512 photograph: level 1 takes 25 ms. Pillow's default of 6 takes 82 ms and level 9 takes 111 ms, for
# files 10% smaller. A server writes a file once, and it is read once.
_PNG_COMPRESS_LEVEL = 1
JPEG_QUALITY = 90
WEBP_QUALITY = 90
AVIF_QUALITY = 80
_OPTIONS: dict[ImageFormat, dict[str, object]] = {
    ImageFormat.PNG: {"compress_level": _PNG_COMPRESS_LEVEL},
    # Full colour resolution: 1.2 to 2 dB more in RGB, for a quarter more bytes.
    ImageFormat.JPEG: {"quality": JPEG_QUALITY, "subsampling": "4:4:4"},
    ImageFormat.WEBP: {"quality": WEBP_QUALITY},
    # Full colour resolution: 1 dB more, for 4% more bytes. Speed 8 takes 130 ms where the
    # default of 6 takes 330 ms for 3% fewer bytes.
    ImageFormat.AVIF: {"quality": AVIF_QUALITY, "subsampling": "4:4:4", "speed": 8},
}
_MAX_SIDES = {ImageFormat.JPEG: 65500, ImageFormat.WEBP: 16383, ImageFormat.AVIF: 65536}


def write_image(pixels: Pixels, image_format: ImageFormat = ImageFormat.PNG, quality: int | None = None) -> bytes:
    """Map RGB pixels to an image file without profile or metadata, which readers take as sRGB.

    Args:
        pixels: uint8 `(H, W, 3)` RGB.
        image_format: PNG is lossless; JPEG and AVIF keep full colour resolution, WebP cannot.
        quality: 1 (small) to 100 (close); None: `JPEG_QUALITY`, `WEBP_QUALITY` or `AVIF_QUALITY`. The scales of the
            formats do not compare. PNG is lossless and takes no quality.

    Returns:
        The whole file.

    Raises:
        TensorError: `pixels` is not uint8 `(H, W, 3)`.
        ImageError: a quality is given for PNG or is out of range, a side is too long for the format, or the encoder
            fails.
    """
    check_pixels(pixels)
    options = dict(_OPTIONS[image_format])
    if quality is not None:
        if image_format is ImageFormat.PNG:
            raise ImageError(f"quality is {quality}, but PNG is lossless; leave it out, or take JPEG, WEBP or AVIF")
        if not 1 <= quality <= 100:
            raise ImageError(f"quality is {quality}; it must be 1..100")
        options["quality"] = quality
    height, width = pixels.shape[:2]
    max_side = _MAX_SIDES.get(image_format)
    if max_side is not None and max(width, height) > max_side:
        raise ImageError(f"image is {width}x{height}; {image_format.pillow_name} holds sides <= {max_side} (take PNG)")
    file = io.BytesIO()
    try:
        Image.fromarray(pixels).save(file, image_format.pillow_name, **options)
    except Exception as error:  # each encoder has exceptions of its own
        raise ImageError(
            f"image of {width}x{height} cannot be written as {image_format.pillow_name}: "
            f"{str(error) or type(error).__name__} (take PNG)"
        ) from error
    return file.getvalue()
