# SPDX-License-Identifier: Apache-2.0
"""The figures, pictures and skipped files of a training run -> log.csv, curves.png, events, skipped.txt in its folder.

log.csv has the columns `step`, `seconds` and one for each name that was recorded (`train/l1`, `held_out/psnr` ...); a
cell is empty where nothing was measured. It is the record: a process that is killed leaves at most a torn last line,
which the next one drops. TensorBoard and Matplotlib are the `train` extra's; a run goes on without them.
"""

import csv
import io
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from latentwire_codec.errors import CodecError
from latentwire_codec.training.data import Problem
from latentwire_codec.training.files import write_whole

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_log = logging.getLogger("latentwire.train")

LOG_FILE, CURVES_FILE, SKIPPED_FILE, TENSORBOARD_FOLDER = "log.csv", "curves.png", "skipped.txt", "tensorboard"
_KEYS = ("step", "seconds")


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
    if tuple(header[:2]) != _KEYS:
        raise JournalError(f"{path} is not the log of a training run; move it away, or choose another folder")
    rows = []
    for cells in lines:
        try:
            figures = {name: float(cell) for name, cell in zip(header[2:], cells[2:], strict=True) if cell}
            rows.append(Row(int(cells[0]), float(cells[1]), figures))
        except (ValueError, IndexError):
            break
    return rows


class Journal:
    """Writes down what a run measures.

    Args:
        folder: of the run; it must exist.
        resume_step: the step that the run goes on from; what was recorded after it is dropped. 0: from the start.

    Raises:
        JournalError: the folder's log.csv is no log.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, resume_step: int = 0) -> None:
        self._folder, self._path = folder, folder / LOG_FILE
        rows = [row for row in read_log(self._path) if 0 < resume_step >= row.step]
        self._names = list(dict.fromkeys(name for row in rows for name in row.figures))
        self._write_all(rows)
        self._began = time.monotonic() - (rows[-1].seconds if rows else 0.0)
        self._can_draw = True
        self._events = _open_events(folder / TENSORBOARD_FOLDER, resume_step)

    def record(self, step: int, figures: Mapping[str, float]) -> None:
        """Append a row; a name that is new gets a column, for which the file is written anew."""
        row = Row(step, round(time.monotonic() - self._began, 3), dict(figures))
        new = [name for name in figures if name not in self._names]
        if new:
            rows = [*read_log(self._path), row]
            self._names += new
            self._write_all(rows)
        else:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._lines([row]))
        if self._events is not None:
            for name, value in figures.items():
                self._events.add_scalar(name, value, step)
            # Now, or a run that is killed would have gaps in its events where its log has rows.
            self._events.flush()

    def picture(self, step: int, name: str, png_path: Path) -> None:
        """Put a PNG file into TensorBoard, under a name such as `pictures/reconstructions`."""
        if self._events is not None:
            with Image.open(png_path) as image:
                pixels = np.asarray(image.convert("RGB"))
            self._events.add_image(name, pixels, step, dataformats="HWC")
            self._events.flush()

    def draw_curves(self) -> Path | None:
        """Draw what was recorded to curves.png; return its path, or None without Matplotlib or anything to draw."""
        if not self._can_draw:
            return None
        try:
            from latentwire_codec.training.curves import draw_curves
        except ImportError:
            self._can_draw = False
            _log.warning("no curves are drawn: matplotlib is not installed (pip install 'latentwire[train]')")
            return None
        picture = draw_curves(read_log(self._path))
        if picture is None:
            return None
        path = self._folder / CURVES_FILE
        write_whole(path, picture)
        return path

    def skipped(self, problems: Sequence[Problem]) -> None:
        """Write the names of files that were skipped, and why, to skipped.txt, a line for each."""
        if problems:
            lines = "".join(f"{' '.join(str(problem).split())}\n" for problem in problems)
            write_whole(self._folder / SKIPPED_FILE, lines.encode(errors="surrogateescape"))

    def close(self) -> None:
        """Finish the events file; nothing is recorded after it."""
        if self._events is not None:
            self._events.close()

    def _write_all(self, rows: Sequence[Row]) -> None:
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow([*_KEYS, *self._names])
        write_whole(self._path, (header.getvalue() + self._lines(rows)).encode())

    def _lines(self, rows: Iterable[Row]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in rows:
            # repr gives the shortest digits that are read back as the same number.
            cells = [repr(float(row.figures[name])) if name in row.figures else "" for name in self._names]
            writer.writerow([row.step, row.seconds, *cells])
        return text.getvalue()


def _open_events(folder: Path, resume_step: int) -> "SummaryWriter | None":
    """Map a folder to a writer of events that hides those of steps after `resume_step`; None without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _log.warning(
            "no TensorBoard events are written: tensorboard is not installed (pip install 'latentwire[train]')"
        )
        return None
    return SummaryWriter(str(folder), purge_step=resume_step + 1 if resume_step else 0)
