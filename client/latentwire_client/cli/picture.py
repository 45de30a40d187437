# SPDX-License-Identifier: Apache-2.0
"""An image and its reconstruction -> one picture: original | reconstruction | difference, with captions."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]

AMPLIFICATION = 4
GAP = 8
INK, PAPER = (32, 32, 32), (255, 255, 255)


def side_by_side(original: Pixels, reconstruction: Pixels, captions: Sequence[str]) -> bytes:
    """Map two images, and captions for three, to a PNG file.

    The difference is grey where the two are equal, and `AMPLIFICATION` times theirs about it.

    Args:
        original: uint8 (H,W,3).
        reconstruction: of the same shape.
        captions: of the original, the reconstruction and the difference.
    """
    difference = (reconstruction.astype(np.int16) - original) * AMPLIFICATION + 128
    panels = (original, reconstruction, difference.clip(0, 255).astype(np.uint8))
    height, width = original.shape[:2]
    # Readable when the picture is shown at the width of a screen, and no larger than that.
    font = ImageFont.load_default(size=max(14, width // 32))
    left, top, _, bottom = font.getbbox("".join(captions))
    strip = round(bottom - min(0, top)) + 2 * GAP
    # A small image's panel is as wide as its caption.
    column = max(width, *(round(font.getlength(caption)) for caption in captions))
    picture = Image.new("RGB", (3 * column + 4 * GAP, strip + height + GAP), PAPER)
    draw = ImageDraw.Draw(picture)
    for index, (pixels, caption) in enumerate(zip(panels, captions, strict=True)):
        x = GAP + index * (column + GAP)
        draw.text((x - left, GAP), caption, INK, font)
        picture.paste(Image.fromarray(pixels), (x, strip))
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=3)
    return file.getvalue()
