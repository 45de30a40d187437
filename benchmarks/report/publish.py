# SPDX-License-Identifier: Apache-2.0
"""What a run found -> run.json and report.html in a folder, and its tables on the terminal."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.report.page import Page, print_tables, write_page

FORMAT = 1
"""Of run.json; it grows where a field changes its meaning."""
OUTPUT = Path("benchmark-output")


def publish(
    benchmark: str, environment: Mapping[str, Any], content: Mapping[str, Any], page: Page, out: Path
) -> dict[str, Any]:
    """Write everything, print the tables, and return what run.json holds.

    Args:
        benchmark: its name.
        environment: as `environment` returns it.
        content: `parameters`, `summary`, `rows` and whatever else the benchmark has to keep.
        page: what people read.
        out: the folder; made where it is missing.
    """
    record = {
        "benchmark": benchmark,
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **environment,
        **content,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    write_page(page, record, out / "report.html")
    print_tables(page)
    print(f"{out / 'report.html'} and {out / 'run.json'}")
    return record
