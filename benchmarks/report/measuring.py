# SPDX-License-Identifier: Apache-2.0
"""Image files and a measurement of one -> rows and failures: on several processes, with a bar, resumed."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.report.folder import ImageFile
from benchmarks.report.rows import Row, RowFile
from latentwire_codec.images.files import read_image
from latentwire_codec.images.geometry import Pixels
from latentwire_core.errors import CodecError

Measure = Callable[[Pixels], Row]
"""Maps an image, uint8 (H,W,3), to what is measured of it."""
Prepare = Callable[[], Measure]
"""Loads, once in each process, what a measurement needs; it can be pickled."""

_WAITING = 2
"""Images a process that are handed out at once: all of a large folder would fill the memory with requests."""
_prepared: list[Measure] = []


@dataclass(frozen=True)
class Failure:
    """A file of which nothing was measured, and why."""

    file: str
    error: str


@dataclass(frozen=True)
class Measured:
    """What came of a folder: rows in the order of the names, and the files that have none."""

    rows: list[Row]
    failures: list[Failure]


def measure_folder(files: Sequence[ImageFile], prepare: Prepare, kept: RowFile, workers: int = 1) -> Measured:
    """Measure each file of which no row is kept yet.

    Images are read one at a time and forgotten; what stays in memory is their rows.

    Args:
        files: what to measure.
        prepare: see `Prepare`.
        kept: rows of an earlier run, and where new ones are added as soon as they are there.
        workers: processes; 1: this one.
    """
    rows = kept.read()
    failures = []
    keys = {file.name: file.key for file in files}
    missing = [file for file in files if keys[file.name] not in rows]
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("measuring", total=len(files), completed=len(files) - len(missing))
        for file, result in _results(missing, prepare, workers):
            if isinstance(result, str):
                failures.append(Failure(file.name, result))
                console.print(f"{file.name}: {result}", markup=False, highlight=False, soft_wrap=True)
            else:
                kept.append(keys[file.name], result)
                rows[keys[file.name]] = result
            progress.advance(task)
    measured = [rows[keys[file.name]] for file in files if keys[file.name] in rows]
    return Measured(measured, sorted(failures, key=lambda failure: failure.file))


def _results(files: Sequence[ImageFile], prepare: Prepare, workers: int) -> Iterator[tuple[ImageFile, Row | str]]:
    """Give each file with its row, or with the reason why it has none, as they come."""
    if not files:
        return
    if workers == 1:
        measure = prepare()
        for file in files:
            yield file, _measured(measure, file)
        return
    left = iter(files)
    # Spawned: a fork of a process in which torch has threads can hang.
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // workers)
    with ProcessPoolExecutor(workers, context, _start, (prepare, threads)) as pool:
        running: dict[Future[Row | str], ImageFile] = {}
        try:
            while True:
                for file in islice(left, _WAITING * workers - len(running)):
                    running[pool.submit(_measured_there, file)] = file
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
        finally:
            for future in running:
                future.cancel()


def _start(prepare: Prepare, threads: int) -> None:
    import torch

    # Ctrl-C reaches all processes of a terminal; only the first one says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _prepared.append(prepare())


def _measured_there(file: ImageFile) -> Row | str:
    return _measured(_prepared[0], file)


def _measured(measure: Measure, file: ImageFile) -> Row | str:
    try:
        return {"file": file.name, **measure(read(file.path))}
    except (CodecError, OSError, ValueError) as error:
        # Pillow's codecs raise OSError or ValueError for images that their format cannot hold.
        return " ".join(f"{error}".split()) or type(error).__name__


def read(path: Path) -> Pixels:
    """Map an image file to its pixels; raises CodecError or OSError."""
    return read_image(path.read_bytes())
