# SPDX-License-Identifier: Apache-2.0
"""`latentwire compress`: image files -> `.lat` files of a quality, a size or a PSNR."""

import math
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from latentwire_cli.connection import Connection, connected
from latentwire_cli.conversion import as_seen
from latentwire_cli.existing_files import payload_difference
from latentwire_cli.files import Images, Job, Json, Output, Overwrite, SkipExisting, plan
from latentwire_cli.in_flight import run_in_flight
from latentwire_cli.options import option
from latentwire_cli.report import byte_count, print_line
from latentwire_client.client import Client
from latentwire_core.files import write_whole
from latentwire_core.formats import IMAGE_SUFFIXES
from latentwire_core.quality import LOSSLESS, step_multiple
from latentwire_core.quality import NAMES as QUALITIES

NAMES = ", ".join(QUALITIES)


def _target(what: str, metavar: str, *names: str) -> Any:
    text = f"Instead of a quality: {what}. Found by a search of about ten requests for each image."
    return option(*names, text=text, metavar=metavar)


@connected()
def compress(
    images: Images,
    output: Output,
    quality: Annotated[
        str | None,
        option(
            text=f"{NAMES}, or the quantizer's step as a number above 0: smaller is finer, 1 is about a standard "
            "deviation of the latents.",
            default="cache",
            metavar="NAME|NUMBER",
        ),
    ] = None,
    bpp: Annotated[float | None, _target("at most this number of bits for each pixel of the image", "X")] = None,
    most_bytes: Annotated[int | None, _target("at most this number of bytes for each image", "N", "--bytes")] = None,
    psnr: Annotated[float | None, _target("at least this PSNR, in as few bytes as the search finds", "DB")] = None,
    refine: Annotated[
        int,
        option(
            text="Fit the latents to each image by this number of iterations of gradient descent. 30 iterations gain "
            "about half a decibel at the same number of bytes. One iteration takes as long as encoding and decoding "
            "the image twice. With --bpp, --bytes or --psnr, every request of the search runs all iterations.",
            default="0",
            metavar="ITERATIONS",
            min=0,
        ),
    ] = 0,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    *,
    connection: Connection,
) -> None:
    """Compress images to `.lat` files of a few kilobytes: NAME.png becomes DIR/NAME.lat.

    Without --model, f8c32 compresses, or the server's first model where it is not served: at equal PSNR its files are
    smaller than those of f8c4 at all qualities. Up to 0.2 bits per pixel, f8c4 has the higher MS-SSIM. `cache` and
    `high` of f8c32 take more than one bit per pixel, `low` 0.4; steps of 2 to 4.6 take 0.24 to 0.08.
    A file is decoded by the model that made it, or by another model of the same latent space.
    An image that cannot be compressed is reported, and the other images are compressed all the same.
    """
    wanted = _wanted({"--bpp": bpp, "--bytes": most_bytes, "--psnr": psnr}, quality)
    step = _quality(quality or "cache")
    kind = "float16" if step == LOSSLESS and wanted is None else "quantized"
    asked = {"kind": kind, "model": connection.model_name}
    difference = partial(payload_difference, asked=asked) if skip_existing else None
    jobs = plan(images, IMAGE_SUFFIXES, output, ".lat", overwrite, difference)
    results: list[dict[str, Any]] = []

    def work(client: Client, job: Job) -> bytes:
        if wanted is not None:
            return _searched(client, job.source, *wanted, refine)
        return client.compress(job.source, quality=step, refinement=refine)

    def finish(job: Job, payload: bytes) -> None:
        write_whole(job.target, payload)
        results.append(_result(job, payload))

    def show() -> None:
        total = byte_count(sum(result["bytes"] for result in results))
        print_line(f"compressed {len(results)} of {len(jobs)} images to {output} ({total})")

    with connection.open(takes_long=refine > 0) as client:
        batch = run_in_flight(client, "compressing", jobs, work, finish, resumable=True)
    batch.report(results, as_json, show)


def _wanted(targets: Mapping[str, float | None], quality: str | None) -> tuple[str, float] | None:
    """Return the option that names a target, and its number; None where a quality decides."""
    given = [(name, number) for name, number in targets.items() if number is not None]
    if len(given) + (quality is not None) > 1:
        names = ", ".join(["--quality", *targets])
        raise typer.BadParameter(f"one of {names} decides; give one of them", param_hint=given[-1][0])
    for name, number in given:
        if not 0 < number < math.inf:
            raise typer.BadParameter(f"{number:g} is not a finite number above 0", param_hint=name)
    return given[0] if given else None


def _quality(text: str) -> str | float:
    if text in QUALITIES:
        return text
    try:
        step = float(text)
        step_multiple(step)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither {NAMES} nor a number above 0", param_hint="--quality") from None
    return step


def _searched(client: Client, path: Path, name: str, number: float, refinement: int) -> bytes:
    """Map an image file to the payload that meets a target; raise ValueError where no payload does."""
    from latentwire_codec.lat.rate_target import COARSEST, largest_within, smallest_with
    from latentwire_codec.metrics.scores import psnr
    from latentwire_core.container import read_header

    data = path.read_bytes()

    @cache
    def attempt(step: float) -> bytes:
        return client.compress(data, quality=step, refinement=refinement)

    if name == "--bytes":
        return largest_within(attempt, int(number))
    size = read_header(attempt(2.0**COARSEST)).image_size
    if name == "--bpp":
        return largest_within(attempt, int(number * size[0] * size[1] / 8))
    original = as_seen(data, size)

    def measure(payload: bytes) -> float:
        decoded = client.decode_array(payload)[0]
        return psnr(original, decoded.astype(np.uint8, copy=False))

    return smallest_with(attempt, measure, number)


def _result(job: Job, payload: bytes) -> dict[str, Any]:
    from latentwire_core.container import read_header

    header = read_header(payload)
    height, width = header.image_size
    return {
        "image": str(job.source),
        "payload": str(job.target),
        "width": width,
        "height": height,
        "bytes": len(payload),
        "bits_per_pixel": 8 * len(payload) / (width * height),
        "latent_shape": list(header.shape),
        "model": header.model,
        "latent_space": header.latent_space,
    }
