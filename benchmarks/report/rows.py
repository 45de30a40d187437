# SPDX-License-Identifier: Apache-2.0
"""Rows <-> a file of JSON lines that grows while a run goes on, so that an interrupted run resumes."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Row = dict[str, Any]
"""What was measured of one image: any values that JSON holds."""


class RowFile:
    """Rows on disk, each under the key of its image and the digest of the settings. A context manager.

    Rows of other settings stay in the file and are not returned.

    Args:
        path: the file; it is made where it is missing.
        settings: digest of all that a row depends on beside its image.
    """

    def __init__(self, path: Path, settings: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._settings = settings
        self._file = path.open("a+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        """Add a row; the row has left this process when the call returns."""
        line = json.dumps({"key": key, "settings": self._settings, "row": row}, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
