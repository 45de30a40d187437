# SPDX-License-Identifier: Apache-2.0
"""Images -> pictures of them: rows with captions, an image beside its reconstruction, an animation; PNG and GIF."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

AMPLIFICATION = 4
GAP = 8
INK, PAPER = (32, 32, 32), (255, 255, 255)
FRAME_MS, REST_MS = 60, 800
# A narrower title would be wrapped at every other word.
TITLE_WIDTH = 480
# Smaller images are hard to judge.
READABLE_SIDE = 96


def side_by_side(original: Pixels, reconstruction: Pixels, captions: Sequence[str]) -> bytes:
    """Map an image and its reconstruction to a PNG file of three panels: both, and their difference.

    In the third panel grey stands for equal pixels; differences are shown `AMPLIFICATION` times as large.

    Args:
        original: uint8 (H,W,3).
        reconstruction: of the same shape.
        captions: for the original, the reconstruction and the difference.
    """
    difference = (reconstruction.astype(np.int16) - original) * AMPLIFICATION + 128
    panels = (original, reconstruction, difference.clip(0, 255).astype(np.uint8))
    return to_png(sheet([panels], captions=captions))


def sheet(
    rows: Sequence[Sequence[Pixels]], *, title: str = "", captions: Sequence[str] = (), labels: Sequence[str] = ()
) -> Image.Image:
    """Lay out images in rows on white, with a title, captions and labels.

    Args:
        rows: images of one size, uint8 (H,W,3); the first row is the longest.
        title: text above all rows; long lines are wrapped to the width.
        captions: a line above each column; a column is at least as wide as its caption; empty: no captions.
        labels: a line above each row; empty: no labels.
    """
    # A file's name may have a line end in it.
    captions, labels = ([" ".join(text.split()) for text in texts] for texts in (captions, labels))
    height, width = rows[0][0].shape[:2]
    columns = len(rows[0])
    # The text is just large enough to read when the picture is shown at the width of a screen.
    font = ImageFont.load_default(size=max(14, columns * width // 96))
    column = max(width, *(_width(font, caption) + GAP for caption in captions), 0)
    widths = [columns * (column + GAP) - GAP, *(_width(font, label) for label in labels)]
    inner = max(*widths, TITLE_WIDTH if title else 0)
    left, top, _, bottom = font.getbbox("".join((title, *captions, *labels)) or "x")
    line = round(bottom - min(0, top)) + GAP

    texts = [(GAP, GAP + index * line, text) for index, text in enumerate(_wrapped(title, font, inner))]
    y = GAP + len(texts) * line
    if captions:
        texts += [(GAP + index * (column + GAP), y, caption) for index, caption in enumerate(captions)]
        y += line
    places = []
    for index, row in enumerate(rows):
        if labels:
            texts.append((GAP, y, labels[index]))
            y += line
        places += [(GAP + place * (column + GAP), y, pixels) for place, pixels in enumerate(row)]
        y += height + GAP

    picture = Image.new("RGB", (inner + 2 * GAP, y), PAPER)
    draw = ImageDraw.Draw(picture)
    for x, above, text in texts:
        draw.text((x - left, above), text, INK, font)
    for x, above, pixels in places:
        picture.paste(Image.fromarray(pixels), (x, above))
    return picture


def enlarged(images: Sequence[Pixels]) -> list[Pixels]:
    """Repeat the pixels of images of one size, so that no side is below `READABLE_SIDE`."""
    factor = -(-READABLE_SIDE // min(images[0].shape[:2]))
    return [pixels.repeat(factor, axis=0).repeat(factor, axis=1) for pixels in images]


def shrunk(images: Sequence[Pixels], side: int) -> list[Pixels]:
    """Scale images of one size so that their longer side is at most `side` pixels (Lanczos)."""
    height, width = images[0].shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return list(images)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return [np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)) for pixels in images]


def to_png(picture: Image.Image) -> bytes:
    """Map a picture to a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=3)
    return file.getvalue()


def to_gif(frames: Sequence[Image.Image]) -> bytes:
    """Map pictures of one size to a GIF file that plays them forth and back for ever, resting at both ends."""
    # Each frame has a palette of its own: with a common palette photographs have bands, and dithering flickers.
    there = [frame.quantize(256, Image.Quantize.MEDIANCUT) for frame in frames]
    images = [*there, *there[-2:0:-1]]
    durations = [FRAME_MS] * len(images)
    durations[0] = durations[len(there) - 1] = REST_MS
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False)
    return file.getvalue()


def _width(font: Font, text: str) -> int:
    return round(font.getlength(text))


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    """Break a text into lines at its line ends and at blanks; a word wider than a line stays whole."""
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and _width(font, longer) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return lines
