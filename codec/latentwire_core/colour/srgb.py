# SPDX-License-Identifier: Apache-2.0
"""A Pillow image of any mode -> what it shows: opaque 8-bit sRGB, bit for bit where the image is that already.

    image -> 16 bits to 8 -> colours and alpha apart
    colours -> ICC profile, or Pillow's own conversion -> RGB
    RGB and alpha -> over white -> upright

Where this and Pillow differ, a comment says why.
"""

import io
from contextlib import suppress

import numpy as np
import numpy.typing as npt
from PIL import BmpImagePlugin, ExifTags, GifImagePlugin, Image, ImageCms, TiffImagePlugin

from latentwire_core.colour.code_points import adobe_rgb
from latentwire_core.errors import ImageError

_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC = 258, 262
_ICC_TAGS = 132
"""Where the table of an ICC profile's tags begins, behind their number."""
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,  # counter-clockwise in Pillow: a quarter turn to the right
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}


def check_samples(image: Image.Image) -> None:
    """Refuse samples whose white is not defined; raises ImageError for floating point."""
    if image.mode == "F":
        raise ImageError(
            "the image has floating point samples, whose white is not defined; scale them to 8 bits, or send a raw "
            "tensor"
        )


def shown(image: Image.Image, png_depth: int | None = None, upright: bool = True) -> Image.Image:
    """Map an image, decoded or still to be decoded, to what it shows.

    Args:
        image: of any mode, with Pillow's `info` (transparent colour, ICC profile, Exif).
        png_depth: bits per sample of the PNG file that the transparent colour in `info` comes from, else None.
        upright: whether the orientation that Exif states is applied.

    Returns:
        Mode RGB: in sRGB, composited over white, turned upright by Exif.

    Raises:
        ImageError: the samples are floating point, or 32-bit grey has a value outside 0..65535.
        ValueError: Pillow knows no conversion.
    """
    check_samples(image)
    covered = image.tile[0][1] if isinstance(image, GifImagePlugin.GifImageFile) and image.tile else None
    image.load()
    rgb = _to_opaque_srgb(image, png_depth)
    if covered is not None and covered != (0, 0, *rgb.size):
        # No frame describes the rest of the image, which Pillow fills with a colour of the palette.
        frame, rgb = rgb.crop(covered), Image.new("RGB", rgb.size, "white")
        rgb.paste(frame, covered)
    transposition = _TRANSPOSITIONS.get(orientation(image)) if upright else None
    return rgb if transposition is None else rgb.transpose(transposition)


def orientation(image: Image.Image) -> int:
    """Map an image to the EXIF orientation that its pixels still need, 1..8; unreadable EXIF counts as 1, upright."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return 1  # Pillow turns a TIFF upright when it decodes the pixels, and states the size of the upright image
    try:
        stated = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken metadata is no reason to refuse good pixels
        return 1
    return stated if stated in _TRANSPOSITIONS else 1


def exif_profile(image: Image.Image) -> bytes | None:
    """Return the profile that Exif names: Adobe RGB by the DCF option file (R03), as cameras write it; else None."""
    try:
        index = image.getexif().get_ifd(ExifTags.IFD.Interop).get(1)
    except Exception:  # broken metadata is no reason to refuse good pixels
        return None
    return adobe_rgb() if index in ("R03", b"R03") else None


def _to_opaque_srgb(image: Image.Image, png_depth: int | None) -> Image.Image:
    """Map a decoded image to mode RGB, in sRGB and over white."""
    colours, alpha = _split_alpha(image, png_depth)
    rgb = _to_srgb(colours, image.info.get("icc_profile"))
    if alpha is None:
        return rgb
    white = Image.new("RGB", rgb.size, "white")
    white.paste(rgb, mask=alpha)
    return white


def _split_alpha(image: Image.Image, png_depth: int | None) -> tuple[Image.Image, Image.Image | None]:
    """Map a decoded image to its 8-bit colours without alpha, and to its alpha (mode L) if it has one."""
    if image.mode.startswith("I"):
        return _grey_from_16_bits(image)
    if image.mode == "La":
        image = image.convert("LA")  # Pillow converts premultiplied grey to nothing else
    transparent = image.info.get("transparency")
    if png_depth and transparent is not None:
        # Pillow keeps the transparent colour in the file's own depth, and the pixels in 8 bits.
        if image.mode == "L":
            largest = 2**png_depth - 1
            transparent = (transparent & largest) * (255 // largest)
        elif image.mode == "RGB":
            transparent = tuple(value >> png_depth - 8 & 255 for value in transparent)
        image = image.copy()
        image.info["transparency"] = transparent
    if isinstance(image, BmpImagePlugin.BmpImageFile) and image.mode == "RGBA" and _is_unused(image):
        return image.convert("RGB"), None
    if not image.has_transparency_data:
        return (image.convert("RGB") if image.mode == "P" else image), None
    rgba = image.convert("RGBA")
    # Grey stays grey, because a profile for grey can only be applied to grey.
    colours = rgba.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    return colours, rgba.getchannel("A")


def _is_unused(image: Image.Image) -> bool:
    """Tell whether the alpha of a BMP is 0 everywhere: a byte that nobody filled in."""
    return image.getchannel("A").getextrema() == (0, 0)


def _grey_from_16_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Map mode I or I;16 to mode L, rounded, and one transparent grey to alpha; raises ImageError beyond 0..65535."""
    values = np.asarray(image).astype(np.int32)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"grey values run from {low} to {high}; only 0..65535 has a defined white (scale them to 16 bits)"
        )
    transparent = image.info.get("transparency")
    alpha = None
    if transparent is not None:
        alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    white = 65535
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode != "I":
        # Pillow does not tell that 12-bit samples end at 4095, nor that 0 may be white.
        if image.tag_v2.get(_TIFF_BITS_PER_SAMPLE) == (12,):
            white = 4095
        if image.tag_v2.get(_TIFF_PHOTOMETRIC, 0) == 0:
            values = white - values
    return Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8)), alpha


def _to_srgb(image: Image.Image, icc: object) -> Image.Image:
    """Map colours without alpha, and their ICC profile if any, to mode RGB in sRGB."""
    converted = None
    if isinstance(icc, bytes):  # a PNG text chunk can put a str there
        with suppress(OSError, ValueError, ImageCms.PyCMSError):
            converted = _apply_profile(image, icc)
    return image.convert("RGB") if converted is None else converted


def _grid() -> npt.NDArray[np.uint8]:
    """Return a grid of colours (1,N,3), 18 levels along each axis."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)


def _bounded(icc: bytes) -> bytes:
    """Rename the tags of float pipelines, which may hold any number of stages; profiles have others beside them.

    A pipeline of 20,000 stages, 160 kB, takes 10 s for a single pixel.
    """
    changed = bytearray(icc)
    count = int.from_bytes(icc[_ICC_TAGS - 4 : _ICC_TAGS], "big")
    for entry in range(_ICC_TAGS, min(_ICC_TAGS + 12 * count, len(icc)), 12):
        if icc[entry : entry + 3] in {b"D2B", b"B2D"}:
            changed[entry : entry + 3] = b"---"
    return bytes(changed)


def _apply_profile(image: Image.Image, icc: bytes) -> Image.Image | None:
    """Map colours and their profile to mode RGB in sRGB; None where the colours need no conversion."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(_bounded(icc)))
    mode = _PROFILE_MODES.get(profile.profile.xcolor_space.strip())
    if mode == "RGB" and image.mode in ("1", "L", "YCbCr", "RGBX"):
        image = image.convert("RGB")
    elif mode == "L" and image.mode == "1":
        image = image.convert("L")
    if mode is None or mode != image.mode:
        return None
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode in ("RGB", "L"):
        # Most profiles are sRGB itself, some with a curve of so few points that the conversion moves one pixel in fifty
        # by one level. A grid of colours shows first whether the conversion changes anything else.
        probe = Image.fromarray(_grid() if mode == "RGB" else np.arange(256, dtype=np.uint8)[None, :])
        before, after = np.asarray(probe.convert("RGB")), np.asarray(transform.apply(probe))
        if np.abs(before.astype(np.int16) - after).max() <= 1:
            return None
    return transform.apply(image)
