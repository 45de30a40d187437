# SPDX-License-Identifier: Apache-2.0
"""The first bytes of a file -> what it is, whatever its name says."""

import os
import re
import zipfile
from enum import Enum
from pathlib import Path

from latentwire_core.errors import CheckpointError

HEAD_BYTES = 512
MAX_HEADER_BYTES = 100_000_000
"""The longest header that safetensors itself reads."""


class FileKind(Enum):
    """A kind of file that weights are read from."""

    SAFETENSORS = "safetensors"
    PICKLE = "pickle"


# First bytes -> what the file is, and what to do. Files that hold no weights are the more common fault: a download that
# was answered by a web page, a clone without its large files.
_OTHERS = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the weights themselves", "fetch them with `git lfs pull`"),
    (rb"/annex/objects/", "a git-annex pointer, not the weights themselves", "fetch them with `git annex get`"),
    (rb"\xef?\xbb?\xbf?\s*<(?i:!doctype html|html|head|!--)", "an HTML page, such as a server sends in the place of a "
     "file that needs a login", "download the file again"),
    (rb"\xef?\xbb?\xbf?\s*<\?xml", "an XML text, such as a store sends with an error", "download the file again"),
    (rb"\x1f\x8b", "compressed by gzip", "unpack it with gunzip"),
    (rb"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it with unzstd"),
    (rb"\xfd7zXZ\0", "compressed by xz", "unpack it with unxz"),
    (rb"BZh[1-9]", "compressed by bzip2", "unpack it with bunzip2"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (rb"PK[\x03\x05]", "a zip archive without a pickle of torch's", "unpack it"),
    (rb"(?s:.{257})ustar", "a tar archive", "unpack it"),
    (rb"GGUF", "a GGUF file, whose weights are quantized", "take the safetensors of the same VAE"),
    (rb"\x08[\x01-\x1f][\x12\x1a\x22\x2a:Br]", "an ONNX model", "take the safetensors of the same VAE"),
    (rb"\x89HDF", "an HDF5 file", "take the safetensors of the same VAE"),
    (rb"\x93NUMPY", "a numpy array", "save the tensors with safetensors"),
    (rb"\xef?\xbb?\xbf?\s*[{\[]", "a JSON text", "give the weights, or the folder that holds both"),
)  # fmt: skip


def file_kind(path: Path) -> FileKind:
    """Map a file to its kind.

    Raises:
        CheckpointError: the file cannot be read, is empty or of another kind; the message says which.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {_reason(path, error)}") from None
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes); download it again")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES:
        return FileKind.SAFETENSORS
    if re.match(rb"\x80[\x02-\x05]", head) or (head.startswith(b"PK\3\4") and _holds_pickle(path)):
        return FileKind.PICKLE
    for signature, what, remedy in _OTHERS:
        if re.match(signature, head):
            raise CheckpointError(f"{path} is {what}; {remedy}")
    raise CheckpointError(
        f"{path} is of no kind that is known: it begins with {head[:8].hex(' ')}; give safetensors, a pickle of "
        "tensors, or a folder"
    )


def _holds_pickle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") or name == "data.pkl" for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return True  # cut short: reading it says so


def _reason(path: Path, error: OSError) -> str:
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        annexed = "; fetch it with `git annex get`" if "annex/objects" in target else ""
        return f"it is a link to {target}, which is not there{annexed}"
    return error.strerror or str(error)
