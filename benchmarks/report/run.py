# SPDX-License-Identifier: Apache-2.0
"""What a benchmark measured -> run.json, report.md and report.html; a folder of images -> these and rows.jsonl."""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.report.arguments import OUTPUT
from benchmarks.report.environment import environment
from benchmarks.report.page import Lines, Page, write_page
from benchmarks.report.rows import ImageFile, Measured, Prepare, RowFile, image_files, measure_folder
from latentwire_core.errors import CodecError

FORMAT = 1  # version of run.json; it grows when a field changes its meaning

# Maps what was measured, and the files by name, to the summary in run.json and to the page.
Show = Callable[[Measured, dict[str, ImageFile]], tuple[dict[str, Any], Page]]


def publish(benchmark: str, found: Mapping[str, Any], content: Mapping[str, Any], page: Page, out: Path) -> None:
    """Write run.json and the report into a folder, and print the report's text.

    `found` is what `environment` returned before the run; `content` has `parameters`, `summary`, `rows` and more.
    """
    created = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"benchmark": benchmark, "format": FORMAT, "created": created, **found, **content}
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (out / "report.md").write_text(page.markdown(), encoding="utf-8")
    write_page(page, record, out / "report.html")
    print(page.markdown())
    print(f"report.html, report.md and run.json are in {out}")


def run(benchmark: str, options: argparse.Namespace, parameters: dict[str, Any], prepare: Prepare, show: Show) -> None:
    """Measure a folder and publish what was found; rows depend on their image, the sources and the parameters."""
    out = out_folder(benchmark, options)
    found = environment(benchmark)
    goes_on = f"what was measured is in {out}, and the same command goes on from there"
    settings = json.dumps([benchmark, FORMAT, found["sources"], found["versions"], parameters], sort_keys=True)
    try:
        files = image_files(options.folder)
        with RowFile(out / "rows.jsonl", hashlib.sha256(settings.encode()).hexdigest()[:16]) as kept:
            measured = measure_folder(files, prepare, kept, options.workers)
    except (CodecError, FileNotFoundError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(f"interrupted; {goes_on}")
    except BrokenProcessPool:
        sys.exit(f"a worker process was killed, perhaps for its memory (take fewer --workers); {goes_on}")
    if not measured.rows:
        sys.exit(f"no image that can be read in {options.folder}")
    summary, page = show(measured, {file.name: file for file in files})
    if measured.failures:
        lines = [f"{failure.file}: {failure.error}" for failure in measured.failures]
        page.blocks.append(Lines(f"{len(lines)} of {len(files)} files were left out", lines))
    content = {
        "folder": options.folder.resolve().name,
        "images": len(measured.rows),
        "parameters": parameters,
        "summary": summary,
        "failures": [asdict(failure) for failure in measured.failures],
        "rows": measured.rows,
    }
    publish(benchmark, found, content, page, out)


def out_folder(benchmark: str, options: argparse.Namespace) -> Path:
    """Return the folder that a benchmark of a folder of images writes."""
    return options.out or OUTPUT / f"{benchmark}-{options.folder.resolve().name}"
