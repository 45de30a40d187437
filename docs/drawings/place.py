# SPDX-License-Identifier: Apache-2.0
"""How one place of the latents is coded -> a drawing: traversal, context, table, range coder."""

from pathlib import Path

from safetensors.numpy import load_file

from docs.drawings.canvas import Canvas

TABLES = Path(__file__).parents[2] / "codec" / "latentwire_codec" / "weights" / "prior.safetensors"
SIDE = 17
CELL = 17
PHASE_COLOURS = ("rose", "violet", "violet", "amber", "amber", "teal", "blue")
LEVEL, PART = 20, 6
"""The table that is drawn."""


def phase_of(y: int, x: int) -> int:
    """Return the phase, 0..6, in which a place is coded."""
    if y % 8 == 0 and x % 8 == 0:
        return 0
    for index, stride in enumerate((4, 2, 1)):
        if y % stride == 0 and x % stride == 0:
            odd = (y // stride % 2) + (x // stride % 2)
            return 2 * index + (1 if odd == 2 else 2)
    raise AssertionError


def place() -> Canvas:
    """Draw how a place is coded."""
    c = Canvas(1080, 680, "How a place is coded: order of places, neighbours, mean and scale, table, range coder")
    _traversal(c, 40, 78)
    _context(c, 400, 78)
    _forms(c, 700, 78)
    _coding(c, 40, 474)
    return c


def _heading(c: Canvas, x: float, y: float, number: int, words: str, more: str) -> None:
    c.text(x, y - 36, f"{number}. {words}", 15, bold=True, anchor="start")
    c.text(x, y - 16, more, 11.5, kind="soft", anchor="start")


def _traversal(c: Canvas, left: float, top: float) -> None:
    _heading(c, left, top, 1, "Traversal", "seven phases, coarse to fine; all places of one at once")
    for y in range(SIDE):
        for x in range(SIDE):
            phase = phase_of(y, x)
            at = left + x * CELL, top + y * CELL
            c.cell(*at, CELL, CELL, PHASE_COLOURS[phase])
            c.text(at[0] + CELL / 2, at[1] + 12.5, str(phase), 9.5, kind="ink", bold=phase == 0)
    names = (("rose", "seed"), ("violet", "distance 4"), ("amber", "2"), ("teal", "1, diagonal"), ("blue", "1, cross"))
    places = (0, 52, 130, 160, 240)
    for (colour, name), offset in zip(names, places, strict=True):
        c.cell(left + offset, top + SIDE * CELL + 14, 10, 10, colour)
        c.text(left + offset + 14, top + SIDE * CELL + 23, name, 10.5, kind="soft", anchor="start")


def _context(c: Canvas, left: float, top: float) -> None:
    _heading(c, left, top, 2, "Context", "what is already decoded around the place")
    size = 36
    diagonal = {(0, 0): "a", (2, 2): "b", (0, 2): "c", (2, 0): "d", (1, 1): "?"}
    cross = {(0, 1): "a", (2, 1): "b", (1, 0): "c", (1, 2): "d", (1, 1): "?"}
    before = {(1, 1): "r", (0, 1): "·", (2, 1): "·", (1, 0): "·", (1, 2): "·"}
    for index, (cells, name) in enumerate(((diagonal, "diagonal"), (cross, "cross"))):
        x0 = left + index * 138
        _neighbourhood(c, x0, top, size, cells, "teal")
        c.text(x0 + 1.5 * size, top + 3 * size + 17, f"{name}: two pairs,", 11.5, kind="soft")
        c.text(x0 + 1.5 * size, top + 3 * size + 32, "ab and cd", 11.5, kind="soft")
    _neighbourhood(c, left + 69, top + 172, size, before, "violet")
    c.text(left + 69 + 1.5 * size, top + 172 + 3 * size + 17, "the channel before: r at the", 11.5, kind="soft")
    c.text(left + 69 + 1.5 * size, top + 172 + 3 * size + 32, "same place, four around it", 11.5, kind="soft")


def _neighbourhood(
    c: Canvas, left: float, top: float, size: float, cells: dict[tuple[int, int], str], colour: str
) -> None:
    for y in range(3):
        for x in range(3):
            name = cells.get((y, x))
            kind = "grey" if name is None else "rose" if name == "?" else colour
            c.cell(left + x * size, top + y * size, size, size, kind, strong=name == "?")
            if name:
                c.text(left + (x + 0.5) * size, top + (y + 0.5) * size + 5, name, 14, bold=True)


def _forms(c: Canvas, left: float, top: float) -> None:
    _heading(c, left, top, 3, "Mean and scale", "two linear forms, in integers: the same on every machine")
    c.box(left, top, 340, 112, "blue")
    c.text(left + 16, top + 27, "mean", 13.5, bold=True, anchor="start")
    c.text(left + 324, top + 27, "sixteenths of a step", 11, kind="soft", anchor="end")
    c.text(left + 16, top + 55, "w0 (a + b) + w1 (c + d) + w2 r + bias", 13, mono=True, anchor="start")
    words = "weights fitted to this image: 9 bytes a channel,\nthe section weights (side information)"
    c.lines(left + 16, top + 80, words, 11.5, kind="soft", anchor="start")
    top += 132
    c.box(left, top, 340, 160, "violet")
    c.text(left + 16, top + 27, "scale", 13.5, bold=True, anchor="start")
    c.text(left + 324, top + 27, "the expected error, 1024ths of a step", 11, kind="soft", anchor="end")
    for x, words in (
        (16, "|a - b| + |c - d|\nerrors of a, b\nerror of r\n|4r - sum around r|"),
        (180, "|a + b - c - d|\nerrors of c, d\nerrors around r"),
    ):
        c.lines(left + x, top + 54, words, 12, gap=1.45, mono=True, anchor="start")
    c.text(left + 16, top + 138, "weights and floor from the tables, for each phase", 11.5, kind="soft", anchor="start")


def _coding(c: Canvas, left: float, top: float) -> None:
    c.arrow((left, top - 62), (1040, top - 62), dashed=True, head=False)
    _heading(c, left, top, 4, "Table", "28 levels of scale x 9 fractions of the mean")
    for level in range(28):
        for part in range(9):
            chosen = (level, part) == (LEVEL, PART)
            c.cell(left + level * 9.5, top + part * 14, 9.5, 14, "rose" if chosen else "grey", strong=chosen)
    c.text(left + 133, top + 9 * 14 + 18, "level of the scale, four in an octave", 11.5, kind="soft")
    c.text(left + 133, top + 9 * 14 + 36, "a large scale: low bits go as they are", 11.5, kind="soft")

    middle = left + 330
    _heading(c, middle, top, 5, "Symbol", f"the frequencies of level {LEVEL}, fraction {PART}")
    frequencies = load_file(TABLES)["frequencies"][9 * LEVEL + PART].tolist()
    highest = max(frequencies)
    for symbol, frequency in enumerate(frequencies):
        tall = max(1.5, 120 * (frequency / highest) ** 0.5)
        colour = "rose" if symbol == len(frequencies) - 1 else "teal"
        c.cell(middle + symbol * 9, top + 126 - tall, 7.5, tall, colour)
    for symbol, words in ((0, "-15"), (15, "0"), (30, "15")):
        c.text(middle + symbol * 9 + 4, top + 141, words, 10.5, kind="soft")
    c.text(middle + 144, top + 162, "difference to the mean; the last bar is the escape", 11.5, kind="soft")
    c.text(middle + 144, top + 178, "(heights are square roots)", 11.5, kind="soft")

    right = left + 670
    _heading(c, right, top, 6, "Bytes", "four sections, each with a checksum")
    rows = (
        ("weights", "9 bytes a channel, or 9 for all", "blue"),
        ("symbols", "words of the range coder", "teal"),
        ("escapes", "what is more than 15 from its mean", "rose"),
        ("low bits", "where the scale is large", "grey"),
    )
    for index, (name, words, colour) in enumerate(rows):
        y = top + index * 40
        c.box(right, y, 330, 33, colour)
        c.text(right + 14, y + 21, name, 12.5, bold=True, anchor="start")
        c.text(right + 316, y + 21, words, 11.5, kind="soft", anchor="end")
    c.arrow((left + 276, top + 63), (middle - 12, top + 63))
    c.arrow((middle + 294, top + 63), (right - 10, top + 63))
