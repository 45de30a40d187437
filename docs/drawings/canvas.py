# SPDX-License-Identifier: Apache-2.0
"""Boxes, arrows and words -> one SVG file, readable on light and on dark pages."""

from dataclasses import dataclass, field
from html import escape

COLOURS = {
    # name: (fill, stroke) on a light page, (fill, stroke) on a dark page
    "blue": (("#e7f0fb", "#3b78c2"), ("#1b2d45", "#7fb0ea")),
    "teal": (("#e1f4f0", "#1f8a7a"), ("#15352f", "#63c4b4")),
    "amber": (("#fdf1dc", "#b07318"), ("#3a2e17", "#e0ad5a")),
    "violet": (("#efe9fb", "#7350b8"), ("#2c2443", "#b39bea")),
    "rose": (("#fbe9ee", "#b8476b"), ("#3d222b", "#e08aa5")),
    "grey": (("#f1f3f5", "#7a8794"), ("#2a303a", "#98a5b2")),
}
PAGE = ("#ffffff", "#1e2129")
INK = ("#1d2733", "#e8ecf1")
SOFT = ("#566574", "#a7b3c0")
LINE = ("#8593a1", "#8b98a6")
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','DejaVu Sans',sans-serif"
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"


def _rules(dark: bool) -> str:
    side = int(dark)
    rules = [
        f".page{{fill:{PAGE[side]}}}",
        f".ink{{fill:{INK[side]}}}",
        f".soft{{fill:{SOFT[side]}}}",
        f".line{{fill:none;stroke:{LINE[side]}}}",
        f".head{{fill:{LINE[side]}}}",
    ]
    for name, themes in COLOURS.items():
        fill, stroke = themes[side]
        rules.append(f".{name}{{fill:{fill};stroke:{stroke}}}.t-{name}{{fill:{stroke}}}.s-{name}{{stroke:{stroke}}}")
    return "".join(rules)


@dataclass
class Canvas:
    """A drawing in the making.

    Attributes:
        width: pixels.
        height: pixels.
        title: what the drawing shows, for those who do not see it.
    """

    width: int
    height: int
    title: str
    _parts: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, width: float, height: float, colour: str, dashed: bool = False) -> None:
        """Draw a rounded rectangle."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<rect class="{colour}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7" '
            f'stroke-width="1.5"{dash}/>'
        )

    def cell(self, x: float, y: float, width: float, height: float, colour: str, strong: bool = False) -> None:
        """Draw a rectangle with square corners, as of a grid."""
        weight = 2.2 if strong else 0.8
        self._parts.append(
            f'<rect class="{colour}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
            f'stroke-width="{weight}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float = 13,
        *,
        kind: str = "ink",
        bold: bool = False,
        mono: bool = False,
        anchor: str = "middle",
    ) -> None:
        """Write one line; y is its base line."""
        style = kind + " b" * bold + " m" * mono
        self._parts.append(
            f'<text class="{style}" x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}">'
            f"{escape(words)}</text>"
        )

    def lines(self, x: float, y: float, words: str, size: float = 12, *, gap: float = 1.35, **style: object) -> None:
        """Write several lines, of which the first has its base line at y."""
        for index, line in enumerate(words.split("\n")):
            self.text(x, y + index * size * gap, line, size, **style)  # type: ignore[arg-type]

    def card(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        colour: str,
        head: str,
        words: str = "",
        mono: bool = False,
    ) -> None:
        """Draw a box with a heading and lines of small words, in its middle."""
        self.box(x, y, width, height, colour)
        rows = words.split("\n") if words else []
        top = y + height / 2 - len(rows) * 15 / 2 + 5
        self.text(x + width / 2, top, head, 13.5, bold=True, mono=mono)
        for index, line in enumerate(rows):
            self.text(x + width / 2, top + 17 + index * 15, line, 11.5, kind="soft")

    def arrow(self, *points: tuple[float, float], colour: str = "", dashed: bool = False, head: bool = True) -> None:
        """Draw a line through points, with a head at its end."""
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
        kind = f"line s-{colour}" if colour else "line"
        dash = ' stroke-dasharray="4 4"' if dashed else ""
        self._parts.append(f'<path class="{kind}" d="{path}" stroke-width="1.7" stroke-linejoin="round"{dash}/>')
        if head:
            (x0, y0), (x, y) = points[-2:]
            length = max(((x - x0) ** 2 + (y - y0) ** 2) ** 0.5, 1e-9)
            dx, dy = (x - x0) / length, (y - y0) / length
            corners = [
                (x, y),
                (x - 9 * dx - 4.5 * dy, y - 9 * dy + 4.5 * dx),
                (x - 9 * dx + 4.5 * dy, y - 9 * dy - 4.5 * dx),
            ]
            fill = f"t-{colour}" if colour else "head"
            self._parts.append(
                f'<polygon class="{fill}" points="{" ".join(f"{cx:.1f},{cy:.1f}" for cx, cy in corners)}"/>'
            )

    def svg(self) -> str:
        """Return the whole file."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'width="{self.width}" height="{self.height}">\n'
            f"<title>{escape(self.title)}</title>\n"
            f"<style>text{{font-family:{FONT}}}.m{{font-family:{MONO}}}.b{{font-weight:600}}{_rules(dark=False)}"
            f"@media (prefers-color-scheme:dark){{{_rules(dark=True)}}}</style>\n"
            f'<rect class="page" width="{self.width}" height="{self.height}" rx="10"/>\n'
            + "\n".join(self._parts)
            + "\n</svg>\n"
        )
