# SPDX-License-Identifier: Apache-2.0
"""Bytes -> a file that is there whole or not at all, whatever ends the process."""

import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; its folder must exist, and one process at a time writes the file.

    A process that is killed meanwhile may leave `.NAME.partial` beside it, which the next one to write replaces.

    Raises:
        OSError: the file cannot be written; what was there before is as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            # Without it, a machine that loses power may keep the new name and lose the content.
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
