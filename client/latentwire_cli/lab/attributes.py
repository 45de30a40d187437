# SPDX-License-Identifier: Apache-2.0
"""`latentwire attributes`: a folder of labelled images -> a file of attribute vectors, and a table of accuracies."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from latentwire_cli.connection import Connection, connected
from latentwire_cli.conversion import encoded, encoded_one
from latentwire_cli.files import Json, Overwrite, check_new
from latentwire_cli.local import require
from latentwire_cli.options import option
from latentwire_cli.report import Batch, make_table, name_cell, print_json, print_line, print_note, print_table, working
from latentwire_client.client import Client
from latentwire_core.latents import Latents
from latentwire_lab.accuracy import Interval
from latentwire_lab.attributes import Attributes, Method
from latentwire_lab.fitting import Mask, fit_attributes, unusable

if TYPE_CHECKING:
    from latentwire_train.data.celeba import LabelledFolder

SHOWN_PROBLEMS = 3

app = typer.Typer(name="attributes")


@app.callback(invoke_without_command=True)
def attributes_group(context: typer.Context) -> None:
    """Find directions in latent space, such as Smiling, from labelled images."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command()
@connected()
def fit(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="In CelebA's layout: img_align_celeba/ and list_attr_celeba.txt or .csv.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        option("--output", "-o", text="The file to write; folders are made if need be.", metavar="FILE.safetensors"),
    ],
    method: Annotated[
        Method, typer.Option(help="The difference of the means of images with and without, or logistic regression.")
    ] = "means",
    held_out: Annotated[
        float | None,
        option(
            text="The share of images to measure on instead, between 0 and 1, chosen by the hash of their names.",
            default="the test images of list_eval_partition, else 0.2",
            metavar="SHARE",
        ),
    ] = None,
    limit: Annotated[
        int, option(text="Images to use, drawn at random, the same each time.", default="10000", metavar="N", min=4)
    ] = 10_000,
    overwrite: Overwrite = False,
    as_json: Json = False,
    *,
    connection: Connection,
) -> None:
    """Fit a vector to each attribute, and measure it on images that it was not fitted to.

    Added once to the latents of an image, a vector leads from the average image without the attribute to the average
    image with it. Where the 95 % interval of its balanced accuracy holds 50 %, it is no better than chance.
    All images get the size of the first. An image that cannot be encoded, or an attribute that cannot be fitted, is
    reported, and the others are used.
    """
    if held_out is not None and not 0 < held_out < 1:
        raise typer.BadParameter(f"{held_out} is not between 0 and 1", param_hint="--held-out")
    require("lab")
    check_new(output, ".safetensors", overwrite)
    labelled = _labelled(folder)
    # A fixed stride could fall in step with the order of the folder or of its partition.
    chosen = np.sort(np.random.default_rng(0).permutation(len(labelled))[:limit])
    away = _held_out(labelled, chosen, held_out)
    paths = [Path(labelled.items[index].origin.location) for index in chosen]
    with connection.open() as client, Batch("encoding", len(paths)) as batch:
        places, latents = _encoded(client, paths, batch)
    labels = {
        name: labelled.values[chosen[places], column].astype(np.int64)
        for column, name in enumerate(labelled.attributes)
    }
    for name, reason in unusable(labels, away[places]).items():
        del labels[name]
        batch.failed(Path(name), ValueError(reason))
    if not labels:
        batch.end()
    with working("fitting"):
        attributes = fit_attributes(latents, labels, away[places], method)
    attributes.save(output)
    if as_json:
        print_json({"attributes_file": str(output), **_as_json(attributes), "failures": batch.failures})
    else:
        _print(attributes)
        print_line(f"attribute vectors: {output}")
    batch.end()


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file that `fit` wrote.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show which attributes a file has, and how well they are recognised in held-out images."""
    require("lab")
    attributes = Attributes.load(file)
    if as_json:
        print_json(_as_json(attributes))
    else:
        _print(attributes)


def _labelled(folder: Path) -> "LabelledFolder":
    """Map the folder to its images with labels; name on standard error the files that are left out."""
    from latentwire_train.data.celeba import scan_celeba
    from latentwire_train.data.folder import describe

    with working("reading the folder"):
        labelled = scan_celeba(folder)
    if labelled.problems:
        print_note(f"left out or odd in {folder}: {describe(labelled.problems, SHOWN_PROBLEMS)}")
    return labelled


def _held_out(labelled: "LabelledFolder", chosen: Any, share: float | None) -> Mask:
    """Return whether each chosen image is measured on."""
    from latentwire_train.data.split import split_by_hash

    if share is None and labelled.partition is not None:
        return np.isin(chosen, labelled.indices("test"))
    names = [labelled.name(index) for index in chosen]
    return np.isin(np.arange(len(chosen)), split_by_hash(names, share or 0.2)[1])


def _encoded(client: Client, paths: Sequence[Path], batch: Batch) -> tuple[list[int], Latents]:
    """Map images to the places of the images that could be encoded, and their latents, all of the first one's size."""
    size = None
    for path in paths:
        try:
            size = encoded_one(client, path).image_size
            break
        except (OSError, ValueError):
            continue  # `encoded` reports it later
    items = list(encoded(client, paths, batch, kind="mode", dtype="float32", size=size))
    if not items:
        batch.end()
    values = np.concatenate([latents.values for _, latents in items])
    return [place for place, _ in items], replace(items[0][1], values=values)


def _print(attributes: Attributes) -> None:
    made = f"{attributes.model}, {attributes.method}" if attributes.model else attributes.method
    table = make_table(
        f"Attributes on held-out images, % with 95 % intervals ({made})",
        "attribute",
        ["images", "with", "balanced\naccuracy", "accuracy", "base\nrate", ""],
    )
    for vector in attributes.vectors.values():
        held_out = vector.held_out
        images = held_out.with_all + held_out.without_all
        table.add_row(
            name_cell(vector.name),
            str(images),
            _percent(held_out.with_all / images),
            _interval(held_out.balanced_accuracy),
            _interval(held_out.accuracy),
            _percent(held_out.base_rate),
            "" if held_out.beats_chance else "chance",
        )
    print_table(table)
    print_line("")
    if not all(vector.held_out.beats_chance for vector in attributes.vectors.values()):
        print_line("chance: the interval of the balanced accuracy holds 50 %; the vector is no better than chance.")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(interval: Interval) -> str:
    return f"{_percent(interval.value)} ({100 * interval.low:.0f}-{100 * interval.high:.0f})"


def _as_json(attributes: Attributes) -> dict[str, Any]:
    return {
        "model": attributes.model,
        "latent_space": attributes.latent_space,
        "weights_digest": attributes.weights_digest,
        "latent_shape": list(attributes.latent_shape),
        "image_size": attributes.image_size,
        "method": attributes.method,
        "attributes": [
            {
                "name": vector.name,
                "fitted_with": vector.fitted_with,
                "fitted_without": vector.fitted_without,
                "held_out": asdict(vector.held_out),
                "balanced_accuracy": asdict(vector.held_out.balanced_accuracy),
                "accuracy": asdict(vector.held_out.accuracy),
                "base_rate": vector.held_out.base_rate,
                "beats_chance": vector.held_out.beats_chance,
                "length": float(np.linalg.norm(vector.direction)),
            }
            for vector in attributes.vectors.values()
        ],
    }
