# SPDX-License-Identifier: Apache-2.0
"""A path, bytes or a PIL image -> the bytes of an image file that shows the same.

A PIL image that is as it was opened is sent as its own file, which alone says all of its colours. Any other PIL image
is sent as the pixels that it shows.
"""

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from latentwire_core.colour.srgb import exif_profile, shown

ImageInput = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.generic]
"""A path, the bytes of an image file, a PIL image, or an array: uint8 (H,W,3) or (B,H,W,3), or float (3,H,W) or
(B,3,H,W) in [-1,1]. The sides of an array must be multiples of the model's downsampling factor; other images may have
any size."""

# The classes of images whose files a server reads.
FROM_FILES = (
    AvifImagePlugin.AvifImageFile,
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    JpegImagePlugin.JpegImageFile,
    MpoImagePlugin.MpoImageFile,
    PngImagePlugin.PngImageFile,
    PpmImagePlugin.PpmImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
)


def to_file(image: object) -> bytes:
    """Map a path, bytes or a PIL image to the bytes of an image file.

    Raises:
        OSError: the path cannot be read.
        TypeError: the image is of another type.
        ValueError: a PIL image has no pixels, or its pixels cannot be converted.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Image.Image):
        return _own_file(image) or _from_pixels(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    raise TypeError(f"an image is a path, bytes, a PIL image or a numpy array, not {type(image).__name__}")


def _own_file(image: Image.Image) -> bytes | None:
    """Return the file that an image was opened from; None where there is no file, or the image was changed since."""
    if not isinstance(image, ImageFile.ImageFile) or type(image) not in FROM_FILES or image.tell():
        return None
    try:
        data = _bytes_behind(image)
        fresh = type(image)(io.BytesIO(data))
        if image.tile:  # nothing is decoded yet, on either side
            parts = ("mode", "size", "info", "tile")
            same = all(getattr(image, part) == getattr(fresh, part) for part in parts)
        else:
            fresh.load()
            same = image == fresh
        # Exif that nobody has looked at is as it was; a PNG would be decoded to look at it.
        read = getattr(image, "_exif", None) is not None
        return data if same and not (read and dict(image.getexif()) != dict(fresh.getexif())) else None
    except Exception:  # a closed or a changed file; plugins raise nearly anything
        return None


def _bytes_behind(image: ImageFile.ImageFile) -> bytes:
    file = image.fp or getattr(image, "_fp", None)  # plugins of several frames keep the file as `_fp`
    if file is None or (not image.tile and image.filename):
        return Path(os.fsdecode(image.filename)).read_bytes()
    position = file.tell()
    try:
        file.seek(0)
        data: bytes = file.read()
    finally:
        file.seek(position)
    return data


def _from_pixels(image: Image.Image) -> bytes:
    """Map an image to a file of what it shows."""
    try:
        if 0 in image.size:
            raise ValueError("it has no pixels")
        depth = _depth_of_key(image)
        profile = None if image.info.get("icc_profile") else exif_profile(image)
        if profile is not None:
            image.load()
            image = image.copy()
            image.info["icc_profile"] = profile
        pixels = shown(image, depth)
    except OSError:
        raise
    except Exception as error:  # a file that Pillow reads only now may fail with nearly anything
        raise ValueError(f"the PIL image ({image.mode}, {image.size}) cannot be sent: {error}") from error
    return b"P6\n%d %d\n255\n" % pixels.size + pixels.tobytes()


def _depth_of_key(image: Image.Image) -> int | None:
    """Map an image to the bits of the samples of its PNG file; None where no transparent colour needs to know.

    Pillow keeps the transparent colour as the file has it, and scales the pixels to 8 bits. A decoded image does not
    say how deep its file was; but a transparent colour that no pixel could have means nothing, and so tells the depth.
    """
    key = image.info.get("transparency")
    if not isinstance(image, PngImagePlugin.PngImageFile):
        return None
    if image.mode == "RGB" and isinstance(key, tuple):
        levels = np.asarray(image)
        return 8 if max(key) < 256 and (levels == key).all(axis=-1).any() else 16
    if image.mode == "L" and isinstance(key, int):
        levels = np.unique(np.asarray(image))
        return next((bits for bits in (2, 4) if key < 2**bits and not (levels % (255 // (2**bits - 1))).any()), 8)
    return None
