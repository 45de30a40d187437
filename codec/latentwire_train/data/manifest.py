# SPDX-License-Identifier: Apache-2.0
"""Data files -> one SHA-256 over (relative path, size, SHA-256) of each: which data a model was trained on.

digest = SHA-256 of, for each file in the order of its path's bytes:
path, NUL, size in decimal, NUL, SHA-256 in hex, newline
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from latentwire_core.errors import DataError
from latentwire_train.data.folder import explain


def manifest_digest(root: Path, paths: Iterable[str]) -> str:
    """Map different paths below a root, in any order, with `/`, to 64 hex digits; every byte is read once.

    Raises:
        DataError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(paths, key=os.fsencode):
        try:
            with (root / path).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                size_bytes = file.tell()
        except OSError as error:
            raise DataError(f"{path} cannot be read for the manifest: {explain(error)}; scan the data again") from error
        digest.update(os.fsencode(f"{path}\0{size_bytes}\0{sha256}\n"))
    return digest.hexdigest()
