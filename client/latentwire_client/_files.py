# SPDX-License-Identifier: Apache-2.0
"""Bytes -> a file that is there whole or not at all."""

import uuid
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all, and the folders above it.

    Raises:
        OSError: the file or a folder cannot be written; what was there before is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, as short for every path: two writers never meet, and a long name stays within the limit.
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
