# SPDX-License-Identifier: Apache-2.0
"""Image files and a measurement -> rows and failures, on several processes; rows stay on disk, so that runs resume."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from benchmarks.report.timing import progress
from latentwire_codec.images.files import read_image
from latentwire_codec.images.geometry import Pixels
from latentwire_core.errors import CodecError
from latentwire_core.formats import IMAGE_SUFFIXES

Row = dict[str, Any]  # what was measured of one image: any values that JSON holds
Measure = Callable[[Pixels], Row]  # maps an image, uint8 (H,W,3), to its row
Prepare = Callable[[], Measure]  # loads what a measurement needs, once in each process; it can be pickled

_prepared: list[Measure] = []


@dataclass(frozen=True)
class ImageFile:
    """A file that is an image by its suffix; `name` is its path below the folder, with slashes."""

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


class RowFile:
    """A file of JSON lines, one row each; a context manager.

    A row is stored with the key of its image and with a digest of its settings: all else on which the row depends. Rows
    of other settings stay in the file and are not returned.
    """

    def __init__(self, path: Path, settings: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._settings = settings
        self._file = path.open("a+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self) -> dict[str, Row]:
        """Return the rows of these settings by key; cut off a last line that a killed run left half-written."""
        rows: dict[str, Row] = {}
        self._file.seek(0)
        whole = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                self._file.truncate(whole)
                break
            whole += len(line)
            kept = json.loads(line)
            if kept["settings"] == self._settings:
                rows[kept["key"]] = kept["row"]
        return rows

    def append(self, key: str, row: Row) -> None:
        """Add a row and flush the file, so that the row survives the end of this process."""
        line = json.dumps({"key": key, "settings": self._settings, "row": row}, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()


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
    """Measure each file that has no row yet, on so many processes; 1: in this process. Each new row is kept at once.

    Images are read one at a time and forgotten; only their rows stay in memory.
    """
    rows, failures = kept.read(), []
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
    # Spawned: a fork of a process in which torch has threads can hang.
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // workers)
    with ProcessPoolExecutor(workers, context, _start, (prepare, threads)) as pool:
        running = {pool.submit(_measured_there, file): file for file in files}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


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
