# SPDX-License-Identifier: Apache-2.0
"""`latentwire edit`: an image and attribute vectors -> a picture of it before and after, or of a sweep (PNG, GIF)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from latentwire_cli.connection import Connection, connected
from latentwire_cli.conversion import as_seen, decoded, encoded_one
from latentwire_cli.files import Json, Overwrite, Picture, check_new
from latentwire_cli.local import require
from latentwire_cli.options import NO_VALUE, option
from latentwire_cli.picture import enlarged, sheet, shrunk, to_gif, to_png
from latentwire_cli.report import print_json, print_line
from latentwire_core.files import write_whole
from latentwire_core.latents import Latents
from latentwire_lab.attributes import Attributes
from latentwire_lab.paths import check_same_space

FRAMES, STRIDE, SWEPT_SIDE = 25, 3, 256
"""A sweep has so many frames; one in `STRIDE` is in the row; frames are at most so wide, pixels."""


@connected()
def edit(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The image to edit.", show_default=False)],
    vectors: Annotated[Path, option("--attributes", text="The file that `attributes fit` wrote.", metavar="FILE")],
    attribute: Annotated[
        list[str],
        option(
            text="An attribute and how much of it to add: 1 is the difference of an average image with it to one "
            "without; repeatable.",
            metavar="NAME=STRENGTH",
        ),
    ],
    output: Picture,
    sweep: Annotated[
        bool,
        option(
            "--sweep", text="Show strengths from minus to plus the given ones, and FILE.gif of them.", metavar=NO_VALUE
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    *,
    connection: Connection,
) -> None:
    """Add attribute vectors to the latents of an image, and decode them: original | decoded unchanged | edited.

    The image gets the size of the images that the vectors were fitted to.
    """
    require("lab")
    attributes = Attributes.load(vectors)
    strengths = _strengths(attribute, attributes)
    check_new(output, ".png", overwrite)
    animation = output.with_suffix(".gif")
    if sweep:
        check_new(animation, ".gif", overwrite)
    with connection.open() as client:
        check_same_space(connection.chosen_model(client), attributes)
        latents = encoded_one(client, image, attributes.image_size)
        parts = np.linspace(-1, 1, FRAMES).tolist() if sweep else [0.0, 1.0]
        images = decoded(client, _edited(attributes, latents, strengths, parts))
    title = f"{latents.model}: {image.name}, {_described(attributes, strengths)}"
    if sweep:
        one = next(iter(strengths.values())) if len(strengths) == 1 else None
        captions = [f"{part:+.0%}" if one is None else f"{part * one:+.2f}" for part in parts]
        shown = enlarged(shrunk(images, SWEPT_SIDE))
        write_whole(output, to_png(sheet([shown[::STRIDE]], title=title, captions=captions[::STRIDE])))
        moving = [sheet([[pixels]], captions=[caption]) for pixels, caption in zip(shown, captions, strict=True)]
        write_whole(animation, to_gif(moving))
    else:
        shown = enlarged([as_seen(image.read_bytes(), latents.image_size), *images])
        write_whole(output, to_png(sheet([shown], title=title, captions=["original", "decoded unchanged", "edited"])))
    pictures = [str(output), str(animation)] if sweep else [str(output)]
    if as_json:
        print_json({"pictures": pictures, "model": latents.model, "strengths": dict(strengths)})
    else:
        print_line(f"{'pictures' if sweep else 'picture'}: {', '.join(pictures)}")


def _strengths(options: Sequence[str], attributes: Attributes) -> Mapping[str, float]:
    strengths: dict[str, float] = {}
    for text in options:
        name, equals, number = text.rpartition("=")
        try:
            strength = float(number)
        except ValueError:
            strength = math.nan
        if not equals or not name or not math.isfinite(strength):
            wrong = f"{text!r} is not of the form NAME=STRENGTH, such as Smiling=+1.5"
        elif name in strengths:
            wrong = f"{name} is given twice"
        elif name not in attributes.vectors:
            wrong = f"{name} is not one of {', '.join(attributes.vectors)}"
        else:
            strengths[name] = strength
            continue
        raise typer.BadParameter(wrong, param_hint="--attribute")
    return strengths


def _edited(
    attributes: Attributes, latents: Latents, strengths: Mapping[str, float], parts: Sequence[float]
) -> Latents:
    """Map the latents of one image to its latents with each part of the strengths added."""
    edits = [attributes.edit(latents, {name: part * each for name, each in strengths.items()}) for part in parts]
    return replace(edits[0], values=np.concatenate([each.values for each in edits]))


def _described(attributes: Attributes, strengths: Mapping[str, float]) -> str:
    """Name the edits, and say which are no better than chance."""
    words = []
    for name, strength in strengths.items():
        held_out = attributes.vectors[name].held_out
        doubt = "" if held_out.beats_chance else ", no better than chance"
        words.append(f"{name} {strength:+g} ({held_out.balanced_accuracy.value:.0%} balanced accuracy{doubt})")
    return "; ".join(words)
