# SPDX-License-Identifier: Apache-2.0
"""The figures of a training run <-> log.csv.

The columns are `step`, `seconds` and one for each name that was recorded (`train/l1`, `held_out/psnr` ...); a cell is
empty where a figure was not measured. A killed process leaves at most a torn last line, which the next one drops.
"""

import csv
import io
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from latentwire_core.errors import DataError
from latentwire_core.files import write_whole

KEYS = ("step", "seconds")


@dataclass(frozen=True)
class Row:
    """Figures that were measured at one step."""

    step: int  # the number of steps done
    seconds: float  # time since the run began, without interruptions and without the steps that they cost
    figures: Mapping[str, float]  # name -> value


def read_log(path: Path) -> list[Row]:
    """Map a log.csv to its rows, up to the first torn row; a missing file has no rows.

    Raises:
        DataError: the file is not the log of a training run.
        OSError: the file cannot be read.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = csv.reader(io.StringIO(text[: text.rfind("\n") + 1]))
    header = next(lines, [])
    if tuple(header[:2]) != KEYS:
        raise DataError(f"{path} is not the log of a training run; move it away, or choose another folder")
    rows = []
    for cells in lines:
        try:
            figures = {name: float(cell) for name, cell in zip(header[2:], cells[2:], strict=True) if cell}
            rows.append(Row(int(cells[0]), float(cells[1]), figures))
        except (ValueError, IndexError):
            break
    return rows


class Log:
    """A log.csv that grows. Rows of steps after `resume_step` are dropped; 0 begins an empty log.

    Raises:
        DataError: the file is not the log of a training run.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        self._path = path
        rows = [row for row in read_log(path) if 0 < resume_step >= row.step]
        self._names = list(dict.fromkeys(name for row in rows for name in row.figures))
        self._write(rows)
        self._began = time.monotonic() - (rows[-1].seconds if rows else 0.0)

    def append(self, step: int, figures: Mapping[str, float]) -> None:
        """Add a row; a new name gets a column, for which the file is written anew."""
        row = Row(step, round(time.monotonic() - self._began, 3), dict(figures))
        new = [name for name in figures if name not in self._names]
        if new:
            rows = [*read_log(self._path), row]
            self._names += new
            self._write(rows)
        else:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._lines([row]))

    def _write(self, rows: Iterable[Row]) -> None:
        write_whole(self._path, (_csv([[*KEYS, *self._names]]) + self._lines(rows)).encode())

    def _lines(self, rows: Iterable[Row]) -> str:
        # repr gives the shortest digits that are read back as the same number.
        return _csv(
            [row.step, row.seconds, *(repr(float(row.figures[n])) if n in row.figures else "" for n in self._names)]
            for row in rows
        )


def _csv(lines: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
