# SPDX-License-Identifier: Apache-2.0
"""`latentwire draw-faces`: a seed -> a folder of drawn faces in CelebA's layout, with their true attributes."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from latentwire_cli.exit_status import Refusal
from latentwire_cli.options import option
from latentwire_cli.report import Batch, print_line


def draw_faces(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to write to; made if need be.", show_default=False)
    ],
    count: Annotated[int, option(text="How many faces.", default="5000", metavar="N", min=1, max=999_999)] = 5000,
    size: Annotated[
        int, option(text="Side of a picture in pixels, 32..512.", default="64", metavar="N", min=32, max=512)
    ] = 64,
    seed: Annotated[int, option(text="Seed, 0..2^64-1.", default="0", metavar="N", min=0, max=2**64 - 1)] = 0,
    image_format: Annotated[Literal["png", "jpg"], typer.Option("--format", help="Format of the pictures.")] = "png",
) -> None:
    """Draw faces with known attributes, to train and to check with: no photograph of a person is needed.

    The same command again goes on where it was stopped; a larger count adds faces.
    """
    from latentwire_core.errors import DataError
    from latentwire_core.formats import ImageFormat
    from latentwire_lab.faces import NAMES, write_folder

    kind = ImageFormat.PNG if image_format == "png" else ImageFormat.JPEG
    with Batch("drawing", count) as batch:
        try:
            drawn = write_folder(folder, count, size, seed, image_format=kind, progress=lambda *_: batch.done())
        except DataError as error:
            raise Refusal(str(error)) from error
    print_line(f"{folder} holds {count} faces of {size}x{size} with {len(NAMES)} attributes ({drawn} drawn now)")
