# SPDX-License-Identifier: Apache-2.0
"""A file of an earlier run, and what is asked for now -> how the two differ, as far as the file tells it."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from latentwire_core.latents import FORMAT

DTYPES = {"F16": "float16", "F32": "float32"}


def latents_difference(path: Path, asked: Mapping[str, str]) -> str:
    """Map a file at the place of latents to how it differs; empty: not in what it tells.

    Args:
        path: the file; its numbers are not read.
        asked: any of kind, scale, dtype, image size, model -> what was asked for; empty: nothing was.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb"):  # what cannot be read is an OSError, not a broken safetensors file
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            told: dict[str, str] = file.metadata() or {}
            dtypes = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        return f"holds no latents ({error})"
    if told.get("format") != FORMAT:
        return f"holds no latents (its format is {told.get('format')!r})"
    size = "x".join(told[side] for side in ("image_width", "image_height") if side in told)
    dtype = ", ".join(sorted(DTYPES.get(each, each) for each in dtypes))
    return _difference(told | {"image size": size, "dtype": dtype}, asked)


def payload_difference(path: Path, asked: Mapping[str, str]) -> str:
    """Map a file at the place of a `.lat` payload to how it differs; empty: not in what it tells.

    Args:
        path: the file; of its content the header is looked at.
        asked: any of kind (quantized or float16), model -> what was asked for; empty: nothing was.

    Raises:
        OSError: the file cannot be read.
    """
    from latentwire_core.container import read_header
    from latentwire_core.errors import BitstreamError

    try:
        header = read_header(path.read_bytes())
    except BitstreamError as error:
        return f"holds no payload ({error})"
    return _difference({"kind": header.kind.name.lower(), "model": header.model}, asked)


def _difference(told: Mapping[str, str], asked: Mapping[str, str]) -> str:
    for name, wanted in asked.items():
        there = told.get(name, "")
        if wanted and there and there != wanted:
            return f"was written with the {name} {there}, and {wanted} is asked for"
    return ""
