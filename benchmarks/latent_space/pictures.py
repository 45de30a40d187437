# SPDX-License-Identifier: Apache-2.0
"""Images and plots -> small PNG files with a palette; images in rows with names and captions, by matplotlib."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from PIL import Image

Pixels = npt.NDArray[np.uint8]

DPI = 100
BLUE, ORANGE, GREY, GREEN = "#4477aa", "#cc5522", "#999999", "#228855"
COLOURS = 256
# The width of a figure, inches: it is shown about 900 pixels wide.
WIDTH = 9.0
LABEL_SHARE = 0.12  # share of the width for the names of rows
GAP = 2  # between two images, in their pixels


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure of so many inches without a window or a state."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file with a palette."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    save_picture(Image.open(file).convert("RGB"), path)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture as a PNG file with its own palette, which halves the bytes."""
    # Without dithering, 256 colours show bands in skies and cheeks.
    palette = picture.quantize(COLOURS, Image.Quantize.MEDIANCUT, kmeans=1)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, "PNG", optimize=True)


def mosaic(images: Pixels, columns: int, gap: int = GAP) -> Pixels:
    """Map images (N,H,W,3) to one picture of them in rows, on white."""
    _, height, width, _ = images.shape
    rows = -(-len(images) // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top, left = row * (height + gap), column * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], first: str = "---:") -> str:
    """Map headings and cells to a Markdown table; `first` aligns the first column, the others are at the right."""
    lines = [columns, [first, *["---:"] * (len(columns) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def show(axes: Axes, image: Pixels, title: str = "") -> None:
    """Show an image without axes."""
    axes.imshow(image)
    axes.set_axis_off()
    if title:
        axes.set_title(title, fontsize=9, loc="left")


def show_rows(
    figure: Figure | SubFigure, rows: Sequence[Pixels], labels: Sequence[str], captions: Sequence[str] = ()
) -> None:
    """Show rows of images (N,H,W,3), each with its label at the left, and captions above the columns."""
    grid = figure.subplots(len(rows), 2, width_ratios=[LABEL_SHARE, 1 - LABEL_SHARE], squeeze=False)
    for (name, panel), row, label in zip(grid, rows, labels, strict=True):
        show(panel, mosaic(row, len(row)))
        panel.set_anchor("W")
        name.text(1, 0.5, label, ha="right", va="center", fontsize=9)
        name.set_axis_off()
    side = rows[0].shape[2] + GAP
    for column, caption in enumerate(captions):
        grid[0, 1].text(side * (column + 0.5) - GAP, -GAP, caption, ha="center", va="bottom", fontsize=9)


def draw_rows(
    path: Path,
    rows: Sequence[Pixels],
    labels: Sequence[str],
    captions: Sequence[str] = (),
    *,
    row_height: float = 0.86,
    width: float = WIDTH,
) -> None:
    """Draw a figure of `show_rows`; `row_height` in inches."""
    figure = new_figure(row_height * len(rows), width)
    show_rows(figure, rows, labels, captions)
    save_figure(figure, path)
