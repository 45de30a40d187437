# SPDX-License-Identifier: Apache-2.0
"""Tables, lists, plots and pictures -> Markdown, and one HTML file that loads nothing else."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from benchmarks.report.pictures import Picture
from benchmarks.report.plots import Plot

T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """A table."""

    kind: ClassVar[str] = "text"
    title: str  # its heading
    columns: Sequence[str]  # headings of the columns; the first column names the rows
    rows: Sequence[Sequence[str]]  # texts, as many in each row as there are columns
    note: str = ""  # what stands below it: what is counted, what a figure means

    def markdown(self) -> str:
        """Return the table in Markdown, with columns that are aligned as plain text too."""
        lines = [[cell.replace("|", "\\|") for cell in row] for row in (self.columns, *self.rows)]
        widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
        first, *others = widths
        lines.insert(1, ["-" * first, *("-" * (width - 1) + ":" for width in others)])
        aligned = ([row[0].ljust(first), *map(str.rjust, row[1:], others)] for row in lines)
        return "\n".join(f"| {' | '.join(row)} |" for row in aligned)


def table(title: str, items: Iterable[T], columns: Mapping[str, Callable[[T], str]], note: str = "") -> Table:
    """Map items to a table with one row an item; `columns` maps each heading to the text of an item's cell."""
    return Table(title, list(columns), [[cell(item) for cell in columns.values()] for item in items], note)


@dataclass(frozen=True)
class Lines:
    """A list, such as files that could not be read; a folded list is closed until the reader opens it."""

    kind: ClassVar[str] = "text"
    title: str
    lines: Sequence[str]
    folded: bool = False
    note: str = ""

    def markdown(self) -> str:
        """Return the list in Markdown."""
        return "\n".join(f"- {line}" for line in self.lines)


@dataclass(frozen=True)
class Plots:
    """Plots side by side."""

    kind: ClassVar[str] = "plots"
    title: str
    plots: Sequence[Plot]
    note: str = ""


@dataclass(frozen=True)
class Strip:
    """One image as several codecs or models return it."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Strips:
    """Images below each other, each a row of pictures side by side."""

    kind: ClassVar[str] = "strips"
    title: str
    strips: Sequence[Strip]
    note: str = ""


Block = Table | Lines | Plots | Strips


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str  # its heading
    lead: str  # a sentence or two: what was measured, on what
    blocks: list[Block] = field(default_factory=list)  # the parts in reading order

    def markdown(self) -> str:
        """Return title, tables and lists in Markdown, without plots, pictures and folded lists."""
        parts = [f"# {self.title}", self.lead]
        for block in self.blocks:
            if isinstance(block, Table | Lines) and not (isinstance(block, Lines) and block.folded):
                parts += [f"## {block.title}", block.markdown(), block.note]
        return "\n\n".join(filter(None, parts)) + "\n"


def write_page(page: Page, run: Mapping[str, Any], path: Path) -> None:
    """Write a page as one HTML file, with the environment and parameters of `run`, as in run.json, at its foot."""
    # Enable only tables and lists: names of files and models keep every character, and all text is escaped.
    renderer = MarkdownIt("zero").enable(["table", "list"])
    trim: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, **trim)
    environment.filters["markdown"] = lambda text: Markup(renderer.render(text))  # noqa: S704 - the Markdown is our own
    facts = [("commit", run["commit"] or "no checkout"), ("sources", run["sources"])]
    facts += [(name, str(value)) for group in ("machine", "versions") for name, value in run[group].items() if value]
    facts += [(name, str(value)) for name, value in run["parameters"].items()]
    template = environment.get_template("page.html.j2")
    path.write_text(template.render(page=page, facts=facts, created=run["created"]), encoding="utf-8")
