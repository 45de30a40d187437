# SPDX-License-Identifier: Apache-2.0
"""Data files -> one SHA-256 over (relative path, size, SHA-256) of each: which data a model was trained on.

digest = SHA-256 of, for each file in the order of its path's bytes:
path, NUL, size in decimal, NUL, SHA-256 in hex, newline
"""

import hashlib
import os
from collections.abc import Callable, Mapping

from latentwire_core.errors import DataError
from latentwire_train.data.folder import explain


def manifest_digest(files: Mapping[str, Callable[[], bytes]]) -> str:
    """Map files, by path with `/` or by key, to 64 hex digits; every byte is read once.

    Raises:
        DataError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(files, key=os.fsencode):
        try:
            data = files[path]()
        except OSError as error:
            raise DataError(f"{path} cannot be read for the manifest: {explain(error)}; scan the data again") from error
        digest.update(os.fsencode(f"{path}\0{len(data)}\0{hashlib.sha256(data).hexdigest()}\n"))
    return digest.hexdigest()
