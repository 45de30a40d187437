# SPDX-License-Identifier: Apache-2.0
"""A folder -> its image files; image files and a measurement -> rows and failures, on several processes, resumed."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich.console import Console

from benchmarks.report.rows import Row, RowFile
from benchmarks.report.steps import progress
from latentwire_codec.images.files import read_image
from latentwire_codec.images.geometry import Pixels
from latentwire_core.errors import CodecError
from latentwire_core.formats import IMAGE_SUFFIXES

Measure = Callable[[Pixels], Row]
"""Maps an image, uint8 (H,W,3), to what is measured of it."""
Prepare = Callable[[], Measure]
"""Loads what a measurement needs, once in each process; the callable can be pickled."""

_WAITING = 2
"""Images that are handed out at once, for each process: a whole large folder would fill the memory with requests."""
_prepared: list[Measure] = []


@dataclass(frozen=True)
class ImageFile:
    """A file that is an image by its suffix.

    Attributes:
        path: where it is.
        name: its path below the folder, with slashes.
    """

    path: Path
    name: str

    @property
    def key(self) -> str:
        """Name, bytes and time of change: a file that changed is measured again."""
        status = self.path.stat()
        return f"{self.name} {status.st_size} {status.st_mtime_ns}"


def image_files(folder: Path) -> list[ImageFile]:
    """Map a folder to its image files and those of the folders in it, in the order of their names.

    Raises:
        FileNotFoundError: there is no image.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not paths:
        raise FileNotFoundError(f"no image in {folder}; files that end in {', '.join(sorted(IMAGE_SUFFIXES))} are read")
    return [ImageFile(path, path.relative_to(folder).as_posix()) for path in paths]


@dataclass(frozen=True)
class Failure:
    """A file that could not be measured, and why."""

    file: str
    error: str


@dataclass(frozen=True)
class Measured:
    """Rows of a folder in the order of the names, and the files without a row."""

    rows: list[Row]
    failures: list[Failure]


def measure_folder(files: Sequence[ImageFile], prepare: Prepare, kept: RowFile, workers: int = 1) -> Measured:
    """Measure each file that has no row yet.

    Images are read one at a time and forgotten; only their rows stay in memory.

    Args:
        files: what to measure.
        prepare: see `Prepare`.
        kept: rows of an earlier run; each new row is added at once.
        workers: processes; 1: this process alone.
    """
    rows = kept.read()
    failures = []
    keys = {file.name: file.key for file in files}
    missing = [file for file in files if keys[file.name] not in rows]
    console = Console(stderr=True)
    with progress(console) as bars:
        task = bars.add_task("measuring", total=len(files), completed=len(files) - len(missing))
        for file, result in _results(missing, prepare, workers):
            if isinstance(result, str):
                failures.append(Failure(file.name, result))
                console.print(f"{file.name}: {result}", markup=False, highlight=False, soft_wrap=True)
            else:
                kept.append(keys[file.name], result)
                rows[keys[file.name]] = result
            bars.advance(task)
    measured = [rows[keys[file.name]] for file in files if keys[file.name] in rows]
    return Measured(measured, sorted(failures, key=lambda failure: failure.file))


def _results(files: Sequence[ImageFile], prepare: Prepare, workers: int) -> Iterator[tuple[ImageFile, Row | str]]:
    """Yield each file with its row, or with the reason why it has no row, as soon as it is measured."""
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

    # Ctrl-C reaches all processes of a terminal; only the first process reports it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _prepared.append(prepare())


def _measured_there(file: ImageFile) -> Row | str:
    return _measured(_prepared[0], file)


def _measured(measure: Measure, file: ImageFile) -> Row | str:
    try:
        return {"file": file.name, **measure(read(file.path))}
    except (CodecError, OSError, ValueError) as error:
        # Pillow raises OSError or ValueError for images that a format cannot hold.
        return " ".join(f"{error}".split()) or type(error).__name__


def read(path: Path) -> Pixels:
    """Map an image file to its pixels; raises CodecError or OSError."""
    return read_image(path.read_bytes())
