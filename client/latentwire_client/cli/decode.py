# SPDX-License-Identifier: Apache-2.0
"""`latentwire decode`: files of latents -> image files."""

from collections import deque
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from latentwire_client._files import write_whole
from latentwire_client.cli import target
from latentwire_client.cli.files import LATENT_SUFFIXES, Job, Json, Output, Overwrite, plan
from latentwire_client.cli.report import Batch, byte_count, print_json, print_line
from latentwire_client.cli.words import option
from latentwire_client.client import Client
from latentwire_client.latents import Latents

# Enough that the server reads, computes and writes at the same time.
IN_FLIGHT = 4


def decode(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="What `encode` wrote, or folders to look through for it.", show_default=False
        ),
    ],
    output: Output,
    image_format: Annotated[
        Literal["png", "jpeg", "webp", "avif"], typer.Option("--format", help="Of the images; PNG is lossless.")
    ] = "png",
    quality: Annotated[
        int | None,
        option(text="Of JPEG, WebP or AVIF, 1..100.", default="90, of AVIF 80", metavar="N"),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    server: target.Server = None,
    local: target.Local = False,
    model: target.Model = "",
    token: target.Token = None,
    tls: target.Tls = False,
    tls_ca: target.TlsCa = None,
    timeout: target.TimeoutS = None,
) -> None:
    """Decode latents to images: NAME.safetensors becomes DIR/NAME.png.

    A file of several latents becomes NAME-0.png, NAME-1.png and so on.
    A file that cannot be decoded is reported, and the others are done all the same.
    """
    if quality is not None and image_format == "png":
        raise typer.BadParameter(
            "PNG is lossless and has none; take --format jpeg, webp or avif", param_hint="--quality"
        )
    if quality is not None and not 1 <= quality <= 100:
        raise typer.BadParameter(f"{quality} is not in 1..100", param_hint="--quality")
    suffix = ".jpg" if image_format == "jpeg" else f".{image_format}"
    jobs = plan(files, LATENT_SUFFIXES, output, suffix, overwrite)
    results: list[dict[str, object]] = []
    written: dict[Path, Path] = {}
    total = 0
    with (
        target.connect(server, token, tls, tls_ca, timeout, local=local, model=model) as client,
        Batch("decoding", len(jobs)) as batch,
        closing(_decoded(client, jobs, image_format, quality)) as answers,
    ):
        for job, decoded in answers:
            try:
                images = decoded.result()
                paths = _paths(job, len(images), written, overwrite)
                for path, data in zip(paths, images, strict=True):
                    write_whole(path, data)
            except Exception as error:
                batch.failed(job.source, error)
                continue
            written |= dict.fromkeys(paths, job.source)
            total += sum(map(len, images))
            results.append({"latents": str(job.source), "images": [str(path) for path in paths]})
            batch.done()
    if as_json:
        print_json({"results": results, "failures": batch.failures})
    elif results:
        print_line(f"wrote the images of {len(results)} of {len(jobs)} files to {output} ({byte_count(total)})")
    batch.end()


def _decoded(
    client: Client, jobs: Iterable[Job], image_format: str, quality: int | None
) -> Generator[tuple[Job, Future[list[bytes]]], None, None]:
    """Yield each job with its image files or its failure, in order; a few are on their way at any time."""

    def work(job: Job) -> list[bytes]:
        latents = Latents.load(job.source)
        return target.patiently(partial(client.decode_files, latents, image_format=image_format, quality=quality))

    waiting: deque[tuple[Job, Future[list[bytes]]]] = deque()
    pool = ThreadPoolExecutor(IN_FLIGHT)
    try:
        for job in jobs:
            waiting.append((job, pool.submit(work, job)))
            if len(waiting) == IN_FLIGHT:
                yield waiting.popleft()
        yield from waiting
    finally:
        client.close()  # an early end takes the calls on their way along
        pool.shutdown(cancel_futures=True)


def _paths(job: Job, images: int, written: Mapping[Path, Path], overwrite: bool) -> list[Path]:
    """Map a job to the path of each of its images; raises ValueError where one is taken."""
    paths = [job.target]
    if images > 1:
        paths = [job.target.with_stem(f"{job.target.stem}-{index}") for index in range(images)]
    for path in paths:
        if path in written:
            raise ValueError(f"{path} was already written for {written[path]}; rename one of the two")
        if path.exists() and not overwrite:
            raise ValueError(f"{path} exists; --overwrite replaces it, or write to another folder with -o")
    return paths
