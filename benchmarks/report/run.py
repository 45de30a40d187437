# SPDX-License-Identifier: Apache-2.0
"""A benchmark and the folder it was given -> rows.jsonl while it runs; run.json and report.html at its end."""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.report.environment import environment
from benchmarks.report.folder import ImageFile, image_files
from benchmarks.report.measuring import Measured, Prepare, measure_folder
from benchmarks.report.model import Source
from benchmarks.report.page import Lines, Page
from benchmarks.report.publish import FORMAT, OUTPUT, publish
from benchmarks.report.rows import RowFile
from latentwire_core.errors import CodecError

Show = Callable[[Measured, dict[str, ImageFile]], tuple[dict[str, Any], Page]]
"""Maps what was measured, and the files by name, to the summary in run.json and to the page."""


def parser(description: str, benchmark: str) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark of a folder takes."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("folder", type=Path, help="images, also in folders below it")
    made.add_argument(
        "--model", nargs="+", default=["f8c4"], metavar="SOURCE", help="what `serve --model` takes (default f8c4)"
    )
    made.add_argument("--device", default="auto")
    made.add_argument("--dtype", default="auto")
    made.add_argument("--workers", type=int, default=1, help="processes; each loads the models (default 1)")
    made.add_argument(
        "-o", "--out", type=Path, help=f"folder for rows.jsonl, run.json and report.html (default {OUTPUT}/NAME-FOLDER)"
    )
    return made


def sources(arguments: argparse.Namespace) -> list[Source]:
    """Return the models that were asked for; end with a message where two have one name, or workers are none."""
    if arguments.workers < 1:
        sys.exit(f"--workers is {arguments.workers}; it must be at least 1")
    found = [Source(source, arguments.device, arguments.dtype) for source in arguments.model]
    if len({each.name for each in found}) < len(found):
        sys.exit(f"two models have one name: {', '.join(each.name for each in found)}; rename a folder")
    return found


def run(
    benchmark: str, arguments: argparse.Namespace, parameters: dict[str, Any], prepare: Prepare, show: Show
) -> Path:
    """Measure a folder, print the tables, and write everything; return the folder with it.

    Args:
        benchmark: its name.
        arguments: as `parser` made them.
        parameters: all that a row depends on beside its image and the sources.
        prepare: see `measure_folder`.
        show: see `Show`.
    """
    out: Path = arguments.out or OUTPUT / f"{benchmark}-{arguments.folder.resolve().name}"
    found = environment(benchmark)
    goes_on = f"what was measured is in {out}, and the same command goes on from there"
    settings = json.dumps([benchmark, FORMAT, found["sources"], found["versions"], parameters], sort_keys=True)
    try:
        files = image_files(arguments.folder)
        with RowFile(out / "rows.jsonl", hashlib.sha256(settings.encode()).hexdigest()[:16]) as kept:
            measured = measure_folder(files, prepare, kept, arguments.workers)
    except (CodecError, FileNotFoundError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(f"interrupted; {goes_on}")
    except BrokenProcessPool:
        sys.exit(f"a worker process was killed, perhaps for its memory (take fewer --workers); {goes_on}")
    if not measured.rows:
        sys.exit(f"no image that can be read in {arguments.folder}")
    summary, page = show(measured, {file.name: file for file in files})
    if measured.failures:
        lines = [f"{failure.file}: {failure.error}" for failure in measured.failures]
        page.blocks.append(Lines(f"{len(lines)} of {len(files)} files were left out", lines))
    content = {
        "folder": arguments.folder.resolve().name,
        "images": len(measured.rows),
        "parameters": parameters,
        "summary": summary,
        "failures": [asdict(failure) for failure in measured.failures],
        "rows": measured.rows,
    }
    publish(benchmark, found, content, page, out)
    return out
