# SPDX-License-Identifier: Apache-2.0
"""Tables, plots and pictures -> one HTML file that needs nothing else, and tables on a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.report.pictures import Picture
from benchmarks.report.plots import COLOURS

WIDTH = 160
"""Of tables, in characters, where standard output is no terminal."""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: above it.
        columns: headings; the first is of the rows' names.
        rows: of texts, as many as there are columns.
        note: below it: what is counted, what a figure means.
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Plots:
    """Plots with one legend: the label, the colour and whether dashed, of each line."""

    kind: ClassVar[str] = "plots"
    title: str
    svgs: Sequence[str]
    legend: Sequence[tuple[str, int, bool]]
    note: str = ""


@dataclass(frozen=True)
class Strip:
    """An image as several made it."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Strips:
    """Images side by side."""

    kind: ClassVar[str] = "strips"
    title: str
    strips: Sequence[Strip]
    note: str = ""


@dataclass(frozen=True)
class Lines:
    """Plain lines, such as files that could not be read; folded away where `folded`."""

    kind: ClassVar[str] = "lines"
    title: str
    lines: Sequence[str]
    folded: bool = False


Block = Table | Plots | Strips | Lines


@dataclass(frozen=True)
class Page:
    """What a benchmark has to say.

    Attributes:
        title: of the page.
        lead: a sentence or two: what was measured, on what.
        blocks: in the order in which they are read.
    """

    title: str
    lead: str
    blocks: list[Block] = field(default_factory=list)


def write_page(page: Page, run: dict[str, Any], path: Path) -> None:
    """Write a page as one HTML file.

    Args:
        page: what it shows.
        run: the environment and parameters at its foot, as in run.json.
        path: of the file.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["svg"] = Markup
    template = environment.get_template("page.html.j2")
    facts = [("commit", run["commit"] or "no checkout"), ("sources", run["sources"])]
    facts += [(name, str(value)) for group in ("machine", "versions") for name, value in run[group].items() if value]
    facts += [(name, str(value)) for name, value in run["parameters"].items()]
    html = template.render(page=page, facts=facts, created=run["created"], colours=range(COLOURS))
    path.write_text(html, encoding="utf-8")


def print_tables(page: Page) -> None:
    """Print the tables of a page on standard output, with their notes."""
    width = None if Console().is_terminal else WIDTH
    console = Console(markup=False, highlight=False, width=width)
    for block in page.blocks:
        if isinstance(block, Table):
            table = RichTable(title=block.title, title_justify="left", caption=block.note, caption_justify="left")
            for number, column in enumerate(block.columns):
                table.add_column(column, justify="right" if number else "left")
            for row in block.rows:
                table.add_row(*row)
            console.print(table)
