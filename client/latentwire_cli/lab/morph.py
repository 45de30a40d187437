# SPDX-License-Identifier: Apache-2.0
"""`latentwire morph`: two images -> the images between them, along the line and along the sphere, as PNG and GIF."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from latentwire_cli.connection import Connection, connected
from latentwire_cli.conversion import decoded, encoded_one
from latentwire_cli.files import Json, Overwrite, Picture, check_new
from latentwire_cli.options import option
from latentwire_cli.picture import enlarged, sheet, shrunk, to_gif, to_png
from latentwire_cli.report import print_json, print_line
from latentwire_client.client import Client
from latentwire_core.files import write_whole
from latentwire_core.latents import Latents
from latentwire_lab.paths import along_line, along_sphere

# With fewer frames from end to end, one would see single frames.
SMOOTH_STEPS = 25
SHOWN_SIDE = 256
# Frames of photographs compress to half of their pixels' bytes only: larger frames make many megabytes.
MOVING_SIDE = 192


@connected()
def morph(
    start: Annotated[Path, typer.Argument(metavar="A", help="The image to begin with.", show_default=False)],
    end: Annotated[
        Path,
        typer.Argument(
            metavar="B", help="The image to end with; B is scaled and cropped to A's size.", show_default=False
        ),
    ],
    output: Picture,
    steps: Annotated[
        int,
        option(text="Images in a row, A and B included; the GIF has more.", default="8", metavar="N", min=2, max=64),
    ] = 8,
    overwrite: Overwrite = False,
    as_json: Json = False,
    *,
    connection: Connection,
) -> None:
    """Decode the path between two images in latent space.

    FILE.png shows one row along the straight line, and one row along the sphere about the origin. The samples of
    N(0, I) lie near this sphere. FILE.gif, beside FILE.png, moves along both paths and back.
    """
    animation = check_new(output, ".png", overwrite).with_suffix(".gif")
    check_new(animation, ".gif", overwrite)
    # The row shows every `stride`-th frame.
    stride = -(-(SMOOTH_STEPS - 1) // (steps - 1))
    frames = stride * (steps - 1) + 1
    with connection.open() as client:
        source = connection.chosen_model(client)
        first, last, resized = _ends(client, start, end)
        paths = along_line(first, last, frames), along_sphere(first, last, frames)
        together = replace(paths[0], values=np.concatenate([path.values for path in paths]))
        images = decoded(client, together)
    shown, small = (enlarged(shrunk(images, side)) for side in (SHOWN_SIDE, MOVING_SIDE))
    title = f"{source.name}: from {start.name} to {end.name}{resized}"
    if not source.is_vector:
        title += "\nThe latents are spatial: each position changes by itself, so that one image fades into the other."
    captions = [f"{index / (steps - 1):.0%}" for index in range(steps)]
    labels = ("along the line", "along the sphere")
    strip = sheet([shown[:frames:stride], shown[frames::stride]], title=title, captions=captions, labels=labels)
    moving = [sheet([pair], captions=labels) for pair in zip(small[:frames], small[frames:], strict=True)]
    write_whole(output, to_png(strip))
    write_whole(animation, to_gif(moving))
    if as_json:
        print_json(
            {
                "picture": str(output),
                "animation": str(animation),
                "model": source.name,
                "latent_space": source.latent_space,
                "latent_shape": list(first.values.shape[1:]),
                "norms": [float(np.linalg.norm(ends.values)) for ends in (first, last)],
                "resized": bool(resized),
                "frames": frames,
            }
        )
    else:
        print_line(f"pictures: {output}, {animation}")


def _ends(client: Client, start: Path, end: Path) -> tuple[Latents, Latents, str]:
    """Return the latents of both images, of one size, and a note if the second image was resized."""
    first = encoded_one(client, start)
    last = encoded_one(client, end)
    if last.image_size == first.image_size or first.image_size is None or last.image_size is None:
        return first, last, ""
    was, now = ("{1}x{0}".format(*size) for size in (last.image_size, first.image_size))
    last = encoded_one(client, end, first.image_size)
    return first, last, f" ({was}, scaled and cropped to {now})"
