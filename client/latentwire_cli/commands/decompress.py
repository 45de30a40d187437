# SPDX-License-Identifier: Apache-2.0
"""`latentwire decompress`: `.lat` files -> image files."""

from pathlib import Path
from typing import Annotated

import typer

from latentwire_cli.connection import Connection, connected
from latentwire_cli.decoding import Format, Quality, decode_files, suffix_of
from latentwire_cli.files import Json, Output, Overwrite, plan
from latentwire_core.formats import LATENT_SUFFIXES, PAYLOAD_SUFFIXES


@connected()
def decompress(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE.lat",
            help="Files that `compress` wrote, or folders to look through for them.",
            show_default=False,
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
    """Decompress `.lat` files to images: NAME.lat becomes DIR/NAME.png.

    A file that is damaged, or of another latent space, is reported, and the other files are decoded all the same.
    """
    suffix = suffix_of(image_format, quality)
    jobs = plan(files, PAYLOAD_SUFFIXES, output, suffix, overwrite)
    decode_files(connection.open(), jobs, _read, "payload", output, image_format, quality, overwrite, as_json)


def _read(path: Path) -> bytes:
    if path.suffix.lower() in LATENT_SUFFIXES:
        raise ValueError("it holds uncompressed latents; `latentwire decode` decodes them")
    return path.read_bytes()
