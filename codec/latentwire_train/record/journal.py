# SPDX-License-Identifier: Apache-2.0
"""The figures, pictures and skipped files of a training run -> log.csv, curves.png, events, skipped.txt in its folder.

log.csv is the record: a process that is killed leaves at most a torn last line, which the next one drops. TensorBoard
and Matplotlib are the `train` extra's; a run goes on without them.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from latentwire_core.files import write_whole
from latentwire_train.data.folder import Problem
from latentwire_train.record.log import LOG_FILE, Row, header_line, lines, read_log

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_log = logging.getLogger("latentwire.train")

CURVES_FILE, SKIPPED_FILE, TENSORBOARD_FOLDER = "curves.png", "skipped.txt", "tensorboard"


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
                file.write(lines([row], self._names))
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
            from latentwire_train.record.curves import draw_curves
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
            text = "".join(f"{' '.join(str(problem).split())}\n" for problem in problems)
            write_whole(self._folder / SKIPPED_FILE, text.encode(errors="surrogateescape"))

    def close(self) -> None:
        """Finish the events file; nothing is recorded after it."""
        if self._events is not None:
            self._events.close()

    def _write_all(self, rows: Sequence[Row]) -> None:
        write_whole(self._path, (header_line(self._names) + lines(rows, self._names)).encode())


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
