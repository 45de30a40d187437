# SPDX-License-Identifier: Apache-2.0
"""A file of an earlier run, and the options of this run -> how the two differ, as far as the file's header shows."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from latentwire_core.latents import FORMAT

DTYPES = {"F16": "float16", "F32": "float32"}


def latents_difference(path: Path, asked: Mapping[str, str]) -> str:
    """Map a file that stands where latents would be written to its difference; empty: it shows no difference.

    Args:
        path: the file; its header is compared, and its numbers are not read.
        asked: any of kind, scale, dtype, image size, model -> the requested value; empty: any value will do.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb"):  # an unreadable file is an OSError, not a broken safetensors file
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            declared: dict[str, str] = file.metadata() or {}
            dtypes = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        return f"holds no latents ({error})"
    if declared.get("format") != FORMAT:
        return f"holds no latents (its format is {declared.get('format')!r})"
    size = "x".join(declared[side] for side in ("image_width", "image_height") if side in declared)
    dtype = ", ".join(sorted(DTYPES.get(each, each) for each in dtypes))
    return _difference(declared | {"image size": size, "dtype": dtype}, asked)


def payload_difference(path: Path, asked: Mapping[str, str]) -> str:
    """Map a file that stands where a `.lat` payload would be written to its difference; see `latents_difference`.

    `asked` may name the kind (quantized or float16) and the model.
    """
    from latentwire_core.container import read_header
    from latentwire_core.errors import BitstreamError

    try:
        header = read_header(path.read_bytes())
    except BitstreamError as error:
        return f"holds no payload ({error})"
    return _difference({"kind": header.kind.name.lower(), "model": header.model}, asked)


def _difference(declared: Mapping[str, str], asked: Mapping[str, str]) -> str:
    for name, wanted in asked.items():
        there = declared.get(name, "")
        if wanted and there and there != wanted:
            return f"was written with the {name} {there}, and {wanted} is asked for"
    return ""
