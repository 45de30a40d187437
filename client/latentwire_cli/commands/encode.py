# SPDX-License-Identifier: Apache-2.0
"""`latentwire encode`: image files -> files of latents."""

import re
from contextlib import closing
from functools import partial
from typing import Annotated, Literal

import typer

from latentwire_cli.connection import Connection, connected
from latentwire_cli.existing_files import latents_difference
from latentwire_cli.files import Images, Job, Json, Output, Overwrite, SkipExisting, plan
from latentwire_cli.options import check_seed_option, option, switch
from latentwire_cli.report import Batch, byte_count, print_line
from latentwire_client.config import EncodeOptions
from latentwire_core.formats import IMAGE_SUFFIXES
from latentwire_core.latents import Latents

MAX_SIDE = 2**20 - 1
"""The largest `serve --max-side`, pixels."""


@connected()
def encode(
    images: Images,
    output: Output,
    kind: Annotated[
        Literal["moments", "mode", "sample"],
        typer.Option(help="The posterior's mean and log-variance, its mode, or a sample of it."),
    ] = "moments",
    seed: Annotated[
        int | None,
        option(text="The seed of the sample's noise, the same for every image, 0..2^64-1.", default="0", metavar="N"),
    ] = None,
    scaled: Annotated[
        bool, switch("--scaled", "Scale the latents, as a diffusion model takes them; for mode and sample.")
    ] = False,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"],
        typer.Option(help="The dtype of the numbers; bfloat16 is written as float32 of that precision."),
    ] = "float32",
    size: Annotated[
        str | None,
        option(
            text="Scale each image to cover this size, and crop its centre.",
            default="the size of the file",
            metavar="WxH",
        ),
    ] = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    *,
    connection: Connection,
) -> None:
    """Encode images to latents: NAME.png becomes DIR/NAME.safetensors.

    A file that cannot be encoded is reported, and the other files are encoded all the same.
    """
    if seed is not None and kind != "sample":
        raise typer.BadParameter(f"only a sample has a seed; the kind is {kind}", param_hint="--seed")
    check_seed_option(seed or 0)
    if scaled and kind == "moments":
        raise typer.BadParameter("moments are always raw; take --kind mode or sample", param_hint="--scaled")
    options: EncodeOptions = {"kind": kind, "scaled": scaled, "dtype": dtype, "size": _height_width(size)}
    asked = {
        "kind": kind,
        "scale": "scaled" if scaled else "raw",
        "dtype": "float16" if dtype == "float16" else "float32",  # bfloat16 is written as float32
        "image size": size or "",
        "model": connection.model_name,
    }
    difference = partial(latents_difference, asked=asked) if skip_existing else None
    jobs = plan(images, IMAGE_SUFFIXES, output, ".safetensors", overwrite, difference)
    if kind == "sample":
        options["seeds"] = [seed or 0] * len(jobs)
    written: dict[int, dict[str, object]] = {}
    with (
        connection.open() as client,
        Batch("encoding", len(jobs), resumable=True) as batch,
        closing(client.encode_stream((job.source for job in jobs), **options)) as stream,
        batch.until_broken_off(),
    ):
        for item in stream:
            job = jobs[item.index]
            with batch.item(job.source):
                written[item.index] = _write(job, item.get())

    def show() -> None:
        total = byte_count(sum(jobs[index].target.stat().st_size for index in written))
        print_line(f"wrote the latents of {len(written)} of {len(jobs)} images to {output} ({total})")

    batch.report([written[index] for index in sorted(written)], as_json, show)


def _write(job: Job, latents: Latents) -> dict[str, object]:
    """Write a file; return its entry of the report."""
    latents.save(job.target)
    height, width = latents.image_size or (None, None)
    return {
        "image": str(job.source),
        "latents": str(job.target),
        "width": width,
        "height": height,
        "latent_shape": list(latents.values.shape[1:]),
        "model": latents.model,
        "latent_space": latents.latent_space,
        "weights_digest": latents.weights_digest,
    }


def _height_width(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,6})x([1-9][0-9]{0,6})", text)
    width, height = map(int, match.groups()) if match else (0, 0)
    if not 0 < max(width, height) <= MAX_SIDE:
        raise typer.BadParameter(
            f"{text!r} is not of the form WIDTHxHEIGHT, such as 512x512, each side in 1..{MAX_SIDE}",
            param_hint="--size",
        )
    return height, width
