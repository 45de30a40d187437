# SPDX-License-Identifier: Apache-2.0
"""`latentwire sample`: seeds -> a picture of the images that a model decodes from its prior, N(0, I)."""

import math
from typing import Annotated

import typer

from latentwire_cli.connection import Connection, connected
from latentwire_cli.conversion import decoded
from latentwire_cli.files import Json, Overwrite, Picture, check_new
from latentwire_cli.options import check_seed_option, option
from latentwire_cli.picture import enlarged, sheet, to_png
from latentwire_cli.report import print_json, print_line
from latentwire_client.info import ModelInfo, ServerLimits
from latentwire_core.files import write_whole
from latentwire_lab.paths import prior_samples

MAX_COUNT = 1024
DEFAULT_SIDE = 256


@connected()
def sample(
    output: Picture,
    count: Annotated[int, option(text="How many images.", default="16", metavar="N", min=1, max=MAX_COUNT)] = 16,
    seed: Annotated[
        int,
        option(text="Seed of the first image, 0..2^64-1; the next has the next.", default="0", metavar="N"),
    ] = 0,
    height: Annotated[
        int | None, option(text="Height of each image; for spatial latents.", default="256", metavar="PIXELS", min=1)
    ] = None,
    width: Annotated[
        int | None, option(text="Width of each image; for spatial latents.", default="256", metavar="PIXELS", min=1)
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    *,
    connection: Connection,
) -> None:
    """Decode samples of the prior N(0, I): the images that a model generates by itself.

    The samples are drawn in the model's own raw latent space, where a VAE's prior is N(0, I).
    A model of latent vectors shows what it has learned from its images. Spatial latents are drawn at each position
    independently, which gives texture; to generate images, they need a diffusion model as prior.
    """
    check_new(output, ".png", overwrite)
    seeds = range(seed, seed + count)
    check_seed_option(seed)
    check_seed_option(seeds[-1])
    with connection.open() as client:
        source = connection.chosen_model(client)
        samples = prior_samples(source, seeds, _size(source, client.info().limits, height, width))
        images = decoded(client, samples)
    columns = math.ceil(math.sqrt(count))
    shown = enlarged(images)
    rows = [shown[start : start + columns] for start in range(0, count, columns)]
    write_whole(output, to_png(sheet(rows, title=_title(source, seeds))))
    if as_json:
        print_json(
            {
                "picture": str(output),
                "model": source.name,
                "latent_space": source.latent_space,
                "weights_digest": source.weights_digest,
                "latent_shape": list(samples.values.shape[1:]),
                "spatial": not source.is_vector,
                "seeds": list(seeds),
            }
        )
    else:
        print_line(f"picture: {output}")


def _size(source: ModelInfo, limits: ServerLimits, height: int | None, width: int | None) -> tuple[int, int] | None:
    if source.fixed_size is None:
        height, width = height or DEFAULT_SIDE, width or DEFAULT_SIDE
        wrong = ""
        if max(height, width) > limits.max_image_side:
            wrong = f"each side must be <= {limits.max_image_side} (serve --max-side)"
        elif height * width > limits.max_image_pixels:
            wrong = f"at most {limits.max_image_pixels} pixels are allowed (serve --max-message-mib)"
        if wrong:
            raise typer.BadParameter(f"image is {width}x{height}; {wrong}", param_hint="--height, --width")
        return height, width
    if height is not None or width is not None:
        only = "{0} makes images of {2}x{1} only; leave it out".format(source.name, *source.fixed_size)
        raise typer.BadParameter(only, param_hint="--height, --width")
    return None


def _title(source: ModelInfo, seeds: range) -> str:
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    title = f"{source.name}: raw latents drawn from N(0, I), decoded; {which}"
    if source.is_vector:
        return title
    return (
        f"{title}\nIts latents are spatial: N(0, I) at independent positions gives texture. "
        "Images need a diffusion model as prior."
    )
