# SPDX-License-Identifier: Apache-2.0
"""`latentwire decode`: files of latents -> image files."""

from pathlib import Path
from typing import Annotated

import typer

from latentwire_cli.connection import Connection, connected
from latentwire_cli.decoding import Format, Quality, decode_files, suffix_of
from latentwire_cli.files import Json, Output, Overwrite, plan
from latentwire_core.formats import IMAGE_SUFFIXES, LATENT_SUFFIXES, PAYLOAD_SUFFIXES
from latentwire_core.latents import Latents


@connected()
def decode(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Files that `encode` wrote, or folders to look through for them.", show_default=False
        ),
    ],
    output: Output,
    image_format: Format = "png",
    quality: Quality = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    *,
    connection: Connection,
) -> None:
    """Decode latents to images: NAME.safetensors becomes DIR/NAME.png.

    A file of several latents becomes NAME-0.png, NAME-1.png and so on.
    A file that cannot be decoded is reported, and the other files are decoded all the same.
    """
    suffix = suffix_of(image_format, quality)
    jobs = plan(files, LATENT_SUFFIXES, output, suffix, overwrite)
    decode_files(connection.open(), jobs, _load, "latents", output, image_format, quality, overwrite, as_json)


def _load(path: Path) -> Latents:
    if path.suffix.lower() in PAYLOAD_SUFFIXES:
        raise ValueError("it is a .lat payload; `latentwire decompress` decodes it")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError("it is an image; `latentwire encode` makes latents of it")
    return Latents.load(path)
