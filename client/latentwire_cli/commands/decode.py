# SPDX-License-Identifier: Apache-2.0
"""`latentwire decode`: files of latents -> image files."""

from pathlib import Path

from latentwire_cli.connection import Connection, connected
from latentwire_cli.decoding import Decoding
from latentwire_cli.files import LatentFiles
from latentwire_cli.options import with_options
from latentwire_core.formats import IMAGE_SUFFIXES, LATENT_SUFFIXES, PAYLOAD_SUFFIXES
from latentwire_core.latents import Latents


@connected()
@with_options(Decoding, "decoding")
def decode(files: LatentFiles, *, decoding: Decoding, connection: Connection) -> None:
    """Decode latents to images: NAME.safetensors becomes DIR/NAME.png.

    A file of several latents becomes NAME-0.png, NAME-1.png and so on.
    A file that cannot be decoded is reported, and the other files are decoded all the same.
    """
    decoding.run(connection, files, LATENT_SUFFIXES, _load, "latents")


def _load(path: Path) -> Latents:
    if path.suffix.lower() in PAYLOAD_SUFFIXES:
        raise ValueError("it is a .lat payload; `latentwire decompress` decodes it")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError("it is an image; `latentwire encode` makes latents of it")
    return Latents.load(path)
