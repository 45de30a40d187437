# SPDX-License-Identifier: Apache-2.0
"""The results of a command -> lines, tables and JSON on standard output, progress on standard error."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Self

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from latentwire_cli.exit_status import FAILED, Interrupted, is_hopeless, one_line, print_error, reason
from latentwire_client.errors import LatentwireError


class Batch:
    """The items of one run: a progress bar while it lasts, and the failures at its end. A context manager.

    Args:
        what: the name of the work, such as `encoding`.
        total: the number of items.
        resumable: whether the command has `--skip-existing`.
    """

    def __init__(self, what: str, total: int, resumable: bool = False) -> None:
        self.total = total
        self._resumable = resumable
        self.failures: list[dict[str, str]] = []
        self._done = 0
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task(what, total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def done(self) -> None:
        """Count an item that is done."""
        self._done += 1
        self._progress.advance(self._task)

    @contextmanager
    def until_broken_off(self) -> Iterator[None]:
        """Hold the loop over the items; an error that breaks it off is listed as the reason why the rest was not done.

        Raises:
            LatentwireError, OSError: the error, where no item was done; the failures before it are listed.
            Interrupted: a signal came; the failures before it are listed, and it tells how many items are done.
        """
        try:
            yield
        except Interrupted as interrupted:
            self._list_failures()
            goes_on = "; the same command with --skip-existing goes on" if self._resumable else ""
            interrupted.progress = f"{self._done} of {self.total} are done{goes_on}"
            raise
        except (LatentwireError, OSError) as error:
            if not self._done:
                self._list_failures()
                raise
            missing = self.total - self._done - len(self.failures)
            self.failures.append({"path": f"the other {missing}", "error": one_line(reason(error))})

    @contextmanager
    def item(self, source: Path) -> Iterator[None]:
        """Hold the work on one item: its end counts it as done, and an error as `failed`."""
        try:
            yield
        except Exception as error:
            self.failed(source, error)
        else:
            self.done()

    def failed(self, source: Path, error: Exception) -> None:
        """Remember that an item failed; raise the error instead where every other item would fail alike."""
        if is_hopeless(error):
            raise error
        self.failures.append({"path": str(source), "error": one_line(reason(error))})
        self._progress.advance(self._task)

    def report(self, results: Sequence[Any], as_json: bool, show: Callable[[], None]) -> None:
        """Print the results and the failures, and end the command as `end` does.

        Args:
            results: the entry of each item that is done.
            as_json: whether to print one JSON document.
            show: prints the results in words; not called where there are no results.
        """
        if as_json:
            print_json({"results": results, "failures": self.failures})
        elif results:
            show()
        self.end()

    def end(self) -> None:
        """List the failures; if there are any, end the command with the status of a failure."""
        self._list_failures()
        if self.failures:
            raise typer.Exit(FAILED)

    def _list_failures(self) -> None:
        for failure in self.failures:
            print_error(f"{failure['path']}: {failure['error']}")


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal that work of unknown length goes on."""
    console = Console(stderr=True)
    with console.status(what) if console.is_terminal else nullcontext():
        yield


def print_line(text: str) -> None:
    """Print one line on standard output, at once."""
    print(_printable(text), flush=True)


def print_note(text: str) -> None:
    """Print a note, which is not a failure, on standard error."""
    print(f"note: {one_line(text)}", file=sys.stderr)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output; ASCII only, so that any file name can be printed."""
    print(json.dumps(value, indent=2, allow_nan=False), flush=True)


def print_table(table: Table) -> None:
    """Print a table on standard output."""
    Console(highlight=False, markup=False).print(table)


def make_table(title: str, first: str, others: Sequence[str], footers: Sequence[str] = ()) -> Table:
    """Make a table of numbers: its first column holds names and may wrap, the others are right-aligned.

    Args:
        title: above the table.
        first: heading of the first column.
        others: headings of the other columns; all empty: the table has no headings.
        footers: the last line, one text for each column; empty: no such line.
    """
    table = Table(
        title=Text(_printable(title), "bold"), title_justify="left", box=box.SIMPLE, padding=(0, 1),
        collapse_padding=True, pad_edge=False, show_edge=False, show_header=any(others), show_footer=bool(footers),
    )  # fmt: skip
    foot, *feet = footers or [""] * (1 + len(others))
    table.add_column(first, foot, overflow="fold", min_width=8)
    for heading, footer in zip(others, feet, strict=True):
        table.add_column(heading, footer, justify="right", no_wrap=True)
    return table


def pairs_table(title: str, pairs: Iterable[tuple[str, str]]) -> Table:
    """Make a table of two columns without headings: labels, and values in which nothing counts as markup."""
    table = make_table(title, "", [""])
    for label, value in pairs:
        table.add_row(label, name_cell(value))
    return table


def name_cell(path: str | Path) -> Text:
    """Map a name from outside to a table's cell, in which nothing counts as markup."""
    return Text(_printable(str(path)))


def byte_count(count: int) -> str:
    """Map a number of bytes to text of at most seven characters: 786 kB is 786 000."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5 or unit == "GB":
            break
    return f"{size:.1f} {unit}" if size < 99.95 else f"{size:.0f} {unit}"


def _printable(text: str) -> str:
    """Replace characters that standard output cannot hold: undecodable bytes of a file name, control characters."""
    encoding = sys.stdout.encoding or "utf-8"
    return one_line(os.fsencode(text).decode(errors="replace")).encode(encoding, "replace").decode(encoding)
