# SPDX-License-Identifier: Apache-2.0
"""A path, bytes or a PIL image -> the bytes of an image file, nothing lost."""

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

ImageInput = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.generic]
"""A path, the bytes of an image file, a PIL image, or an array: uint8 (H,W,3) or (B,H,W,3), or float (3,H,W) or
(B,3,H,W) in [-1,1]. The sides of an array must be multiples of the model's downsampling factor; other images may have
any size."""

# Modes that may have a transparent colour beside their pixels.
KEYED = ("1", "L", "I;16", "P", "RGB")
# a mode that no file format holds -> the nearest mode that a file holds
STORABLE = {"La": "LA", "RGBa": "RGBA", "HSV": "RGB"}


def to_file(image: object) -> bytes:
    """Map a path, bytes or a PIL image to the bytes of an image file.

    Raises:
        OSError: the path cannot be read.
        TypeError: the image is of another type.
        ValueError: a PIL image cannot be written.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Image.Image):
        try:
            return _pil_to_file(image)
        except OSError:
            raise
        except Exception as error:  # a file that Pillow reads only now may fail with nearly anything
            raise ValueError(f"the PIL image ({image.mode}, {image.size}) cannot be sent: {error}") from error
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    raise TypeError(f"an image is a path, bytes, a PIL image or a numpy array, not {type(image).__name__}")


def _pil_to_file(image: Image.Image) -> bytes:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in STORABLE:
        upright = upright.convert(STORABLE[upright.mode])
    # Uncompressed TIFF keeps every mode that the server can convert (alpha, 16 bits, CMYK) and costs no time. But TIFF
    # has no transparent colours, which GIF and PNG have.
    keyed = "transparency" in upright.info and upright.mode in KEYED
    image_format = "PNG" if keyed else "TIFF"
    buffer = io.BytesIO()
    profile = image.info.get("icc_profile")
    # Settings that are not given Pillow takes from the image's own file: JPEG inside TIFF, for one.
    upright.save(buffer, image_format, icc_profile=profile, compression="raw", compress_level=0)
    return buffer.getvalue()
