# SPDX-License-Identifier: Apache-2.0
"""The log of a training run, log.csv -> its rows.

The columns are `step`, `seconds` and one for each name that was recorded (`train/l1`, `held_out/psnr` ...); a cell is
empty where nothing was measured.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentwire_core.errors import CodecError

LOG_FILE = "log.csv"
KEYS = ("step", "seconds")


class JournalError(CodecError):
    """The log of a run cannot be read."""


@dataclass(frozen=True)
class Row:
    """What was measured at once.

    Attributes:
        step: steps that were done.
        seconds: since the run began, without interruptions and without the steps they cost.
        figures: by name.
    """

    step: int
    seconds: float
    figures: Mapping[str, float]


def read_log(path: Path) -> list[Row]:
    """Map a log.csv to its rows, up to the first that is torn; no rows where there is no file.

    Raises:
        JournalError: it is no such log.
        OSError: it cannot be read.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    lines = csv.reader(io.StringIO(whole))
    header = next(lines, [])
    if tuple(header[:2]) != KEYS:
        raise JournalError(f"{path} is not the log of a training run; move it away, or choose another folder")
    rows = []
    for cells in lines:
        try:
            figures = {name: float(cell) for name, cell in zip(header[2:], cells[2:], strict=True) if cell}
            rows.append(Row(int(cells[0]), float(cells[1]), figures))
        except (ValueError, IndexError):
            break
    return rows


def header_line(names: Sequence[str]) -> str:
    """Map the names of figures to the first line of a log."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([*KEYS, *names])
    return text.getvalue()


def lines(rows: Iterable[Row], names: Sequence[str]) -> str:
    """Map rows to the lines of a log with the columns `names`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        # repr gives the shortest digits that are read back as the same number.
        cells = [repr(float(row.figures[name])) if name in row.figures else "" for name in names]
        writer.writerow([row.step, row.seconds, *cells])
    return text.getvalue()
