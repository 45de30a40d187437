# SPDX-License-Identifier: Apache-2.0
"""How one strip of a feature map is computed -> a drawing: halos, whole-image statistics, Winograd's tiles."""

from docs.drawings.canvas import Canvas

TALL = 216
ROW = 12
"""Height of a row that a convolution needs above and below."""


def strip() -> Canvas:
    """Draw how a strip is computed."""
    c = Canvas(
        1080, 690, "How a strip is computed: a residual block row by row, with the statistics of the whole image"
    )
    c.text(40, 40, "A residual block, strip by strip", 15, bold=True, anchor="start")
    words = (
        "read from the right: each map asks the one before it for rows, a convolution for one more on either side; "
        "dashed maps are never whole"
    )
    c.text(40, 60, words, 11.5, kind="soft", anchor="start")
    maps = (
        ("x", "stored", 2, "blue"),
        ("normal, SiLU", "looked at", 2, "grey"),
        ("3x3", "one row more", 1, "teal"),
        ("normal, SiLU", "looked at", 1, "grey"),
        ("3x3, + x", "one row more", 0, "teal"),
        ("x", "written over", 0, "blue"),
    )
    left, top, step, wide = 56, 132, 172, 96
    for index, (name, how, halo, colour) in enumerate(maps):
        x = left + index * step
        stored = name == "x"
        c.text(x + wide / 2, top - 34, name, 13, bold=True)
        c.text(x + wide / 2, top - 16, how, 11.5, kind="soft")
        c.box(x, top, wide, TALL, "grey" if not stored else "blue", dashed=not stored)
        y, tall = top + 84, 48
        if halo:
            c.cell(x, y - halo * ROW, wide, tall + 2 * halo * ROW, "amber")
        c.cell(
            x, y, wide, tall, "rose" if index == len(maps) - 1 else colour if colour != "grey" else "teal", strong=True
        )
        rows = "the strip" if not halo else f"strip ± {halo}"
        c.text(x + wide / 2, y + tall / 2 + 4, rows, 12)
        if index < len(maps) - 1:
            c.arrow((x + wide + 8, y + tall / 2), (x + step - 8, y + tall / 2))
    base = top + TALL
    for source, words in ((0, "mean and variance of the whole map,"), (2, "the same for the inner map: once computed")):
        x = left + source * step
        c.arrow(
            (x + 48, base), (x + 48, base + 22), (x + step + 48, base + 22), (x + step + 48, base + 3), colour="violet"
        )
        c.text(x + (step + 96) / 2, base + 40, words, 11.5, kind="t-violet")
    c.text(left + 134, base + 56, "summed over its strips in float64", 11.5, kind="t-violet")
    c.text(left + 2 * step + 134, base + 56, "for them, or stored where there is room", 11.5, kind="t-violet")
    c.text(left + 4 * step + 134, base + 40, "a strip is written one strip late: nobody", 11.5, kind="soft")
    c.text(left + 4 * step + 134, base + 56, "looks any more at what it replaces", 11.5, kind="soft")

    y = 442
    c.arrow((40, y), (1040, y), dashed=True, head=False)
    _winograd(c, 40, y + 34)
    _upsampling(c, 452, y + 34)
    _attention(c, 790, y + 34)
    return c


def _winograd(c: Canvas, left: float, top: float) -> None:
    c.text(left, top, "Winograd F(4x4, 3x3)", 14, bold=True, anchor="start")
    size = 17
    y0 = top + 26
    for name, cells, x0, colour, words in (
        ("6x6 patch", 6, left, "blue", "of the input"),
        ("36 products", 6, left + 136, "violet", "of matrices"),
        ("4x4 tile", 4, left + 272, "teal", "of the output"),
    ):
        shift = (6 - cells) * size / 2
        for y in range(cells):
            for x in range(cells):
                c.cell(x0 + shift + x * size, y0 + shift + y * size, size, size, colour)
        c.text(x0 + 51, y0 + 122, name, 12, bold=True)
        c.text(x0 + 51, y0 + 138, words, 11.5, kind="soft")
    c.arrow((left + 107, y0 + 51), (left + 131, y0 + 51))
    c.arrow((left + 243, y0 + 51), (left + 283, y0 + 51))
    c.text(left + 187, y0 + 166, "36 multiplications in place of 144", 12, kind="t-violet")


def _upsampling(c: Canvas, left: float, top: float) -> None:
    c.text(left, top, "Upsampling and its 3x3 at once", 14, bold=True, anchor="start")
    y0 = top + 26
    size = 34
    for y in range(3):
        for x in range(3):
            c.cell(left + x * size, y0 + y * size, size, size, "teal" if x < 2 and y < 2 else "grey")
    c.cell(left + size, y0 + size, size / 2, size / 2, "rose", strong=True)
    c.arrow((left + 107, y0 + 51), (left + 147, y0 + 51))
    for y in range(6):
        for x in range(6):
            at = (x, y) == (2, 2)
            c.cell(left + 155 + x * 17, y0 + y * 17, 17, 17, "rose" if at else "grey", strong=at)
    c.text(left + 51, y0 + 122, "small grid", 12, bold=True)
    c.text(left + 206, y0 + 122, "large grid", 12, bold=True)
    c.text(left + 128, y0 + 144, "each pixel sees 2x2 places of the", 11.5, kind="soft")
    c.text(left + 128, y0 + 160, "small grid, with sums of the weights", 11.5, kind="soft")


def _attention(c: Canvas, left: float, top: float) -> None:
    c.text(left, top, "Attention", 14, bold=True, anchor="start")
    y0 = top + 26
    c.cell(left, y0, 70, 102, "grey")
    c.cell(left, y0 + 40, 70, 22, "rose", strong=True)
    c.cell(left + 170, y0, 70, 102, "violet")
    for y in (8, 30, 51, 72, 94):
        c.arrow((left + 74, y0 + 51), (left + 166, y0 + y))
    c.text(left + 35, y0 + 122, "queries", 12, bold=True)
    c.text(left + 205, y0 + 122, "keys, values", 12, bold=True)
    c.text(left + 35, y0 + 138, "of one strip", 11.5, kind="soft")
    c.text(left + 205, y0 + 138, "of all places", 11.5, kind="soft")
