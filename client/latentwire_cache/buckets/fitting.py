# SPDX-License-Identifier: Apache-2.0
"""Pixels and a frame -> the bucket's pixels, by the filter of the trainer's own library."""

import numpy as np
from PIL import Image

from latentwire_cache.buckets.frame import Frame
from latentwire_codec.images.geometry import Pixels, check_pixels, pad_to_multiple

AREA, LINEAR = "area", "linear"
LANCZOS, BICUBIC, BILINEAR, ADM = "lanczos", "bicubic", "bilinear", "adm"
PAD = "pad-"
"""The filter of a frame that is padded and not scaled: the multiple follows."""

_PILLOW = {
    LANCZOS: Image.Resampling.LANCZOS,
    BICUBIC: Image.Resampling.BICUBIC,
    BILINEAR: Image.Resampling.BILINEAR,
}


def fit(pixels: Pixels, frame: Frame) -> Pixels:
    """Map pixels, uint8 (H,W,3), to those of the frame's bucket, uint8 (H,W,3), C-contiguous.

    The filters: `area` and `linear` are OpenCV's INTER_AREA and INTER_LINEAR; `lanczos`, `bicubic` and `bilinear` are
    Pillow's; `adm` halves the image by Pillow's BOX while its shorter side stays at least twice the bucket's, then
    takes BICUBIC; `pad-N` extends the image to multiples of N as `pad_to_multiple` does.

    Raises:
        TensorError: `pixels` is not uint8 (H,W,3).
        ValueError: the image does not have the frame's size, or the filter is unknown.
        ModuleNotFoundError: the filter is `area` or `linear`, and OpenCV is not installed.
    """
    check_pixels(pixels)
    size = (pixels.shape[1], pixels.shape[0])
    if size != frame.original:
        raise ValueError(
            f"the image is {size[0]}x{size[1]}; the plan has {frame.original[0]}x{frame.original[1]}; plan again"
        )
    if frame.filter.startswith(PAD):
        return pad_to_multiple(pixels, int(frame.filter.removeprefix(PAD)))
    resized = pixels if size == frame.resized else _scaled(pixels, frame)
    (left, top), (width, height) = frame.crop, frame.bucket
    return np.ascontiguousarray(resized[top : top + height, left : left + width])


def _scaled(pixels: Pixels, frame: Frame) -> Pixels:
    if frame.filter in (AREA, LINEAR):
        return _by_opencv(pixels, frame)
    image = Image.fromarray(pixels)
    if frame.filter == ADM:
        while min(image.size) >= 2 * min(frame.resized):
            image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
        return np.asarray(image.resize(frame.resized, Image.Resampling.BICUBIC))
    if frame.filter not in _PILLOW:
        raise ValueError(
            f"the filter is {frame.filter!r}; it must be area, linear, adm, pad-N or one of {', '.join(_PILLOW)}"
        )
    return np.asarray(image.resize(frame.resized, _PILLOW[frame.filter]))


def _by_opencv(pixels: Pixels, frame: Frame) -> Pixels:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the rules kohya, musubi and simpletuner scale by OpenCV, as trainers do; pip install 'latentwire[cache]'",
            name="cv2",
        ) from error
    interpolation = cv2.INTER_AREA if frame.filter == AREA else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, frame.resized, interpolation=interpolation), dtype=np.uint8)
