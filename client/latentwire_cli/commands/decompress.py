# SPDX-License-Identifier: Apache-2.0
"""`latentwire decompress`: `.lat` files -> image files."""

from pathlib import Path

from latentwire_cli.connection import Connection, connected
from latentwire_cli.decoding import Decoding
from latentwire_cli.files import PayloadFiles
from latentwire_cli.options import with_options
from latentwire_core.formats import LATENT_SUFFIXES, PAYLOAD_SUFFIXES


@connected()
@with_options(Decoding, "decoding")
def decompress(files: PayloadFiles, *, decoding: Decoding, connection: Connection) -> None:
    """Decompress `.lat` files to images: NAME.lat becomes DIR/NAME.png.

    Without --model, each file is decoded by the model that it names, if the server has a model of its latent space.
    A file that is damaged, or of another latent space, is reported, and the other files are decoded all the same.
    """
    decoding.run(connection, files, PAYLOAD_SUFFIXES, _read, "payload")


def _read(path: Path) -> bytes:
    if path.suffix.lower() in LATENT_SUFFIXES:
        raise ValueError("it holds uncompressed latents; `latentwire decode` decodes them")
    return path.read_bytes()
