# SPDX-License-Identifier: Apache-2.0
"""Files of latents, or of payloads -> image files; shared by `decode` and `decompress`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Annotated, Literal

import typer

from latentwire_cli.files import REMEDY, Job
from latentwire_cli.in_flight import answered
from latentwire_cli.options import option
from latentwire_cli.report import Batch, byte_count, print_json, print_line
from latentwire_client.client import Client
from latentwire_core.files import write_whole
from latentwire_core.formats import ImageFormat
from latentwire_core.latents import Latents

Format = Annotated[
    Literal["png", "jpeg", "webp", "avif"], typer.Option("--format", help="The format of the images; PNG is lossless.")
]
Quality = Annotated[
    int | None,
    option(text="The quality of JPEG, WebP or AVIF, 1..100.", default="90; 80 for AVIF", metavar="N"),
]


def suffix_of(image_format: str, quality: int | None) -> str:
    """Map a format to the suffix of its files.

    Raises:
        typer.BadParameter: the format is lossless, or the quality out of range.
    """
    if quality is not None and image_format == "png":
        raise typer.BadParameter(
            "PNG is lossless and has no quality; take --format jpeg, webp or avif", param_hint="--quality"
        )
    if quality is not None and not 1 <= quality <= 100:
        raise typer.BadParameter(f"{quality} is not in 1..100", param_hint="--quality")
    return ImageFormat(image_format).suffix


def decode_files(
    connection: AbstractContextManager[Client],
    jobs: Sequence[Job],
    load: Callable[[Path], Latents | bytes],
    what: str,
    output: Path,
    image_format: str,
    quality: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Decode each file and write its images, report the failures, and end the command.

    Args:
        connection: gives the client.
        jobs: each file and the path of its image.
        load: maps a file to the latents or the payload that the server decodes.
        what: the name in JSON of what a file holds.
        output: the folder, for the report.
        image_format: the format of the images.
        quality: the quality of a lossy format.
        overwrite: whether files are replaced.
        as_json: whether to print JSON.
    """
    results: list[dict[str, object]] = []
    written: dict[Path, Path] = {}
    total = 0

    with connection as client:

        def work(job: Job) -> list[bytes]:
            return client.decode_files(load(job.source), image_format=image_format, quality=quality)

        with (
            Batch("decoding", len(jobs)) as batch,
            closing(answered(client, jobs, work)) as answers,
            batch.until_broken_off(),
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
                results.append({what: str(job.source), "images": [str(path) for path in paths]})
                batch.done()
    if as_json:
        print_json({"results": results, "failures": batch.failures})
    elif results:
        print_line(f"wrote the images of {len(results)} of {len(jobs)} files to {output} ({byte_count(total)})")
    batch.end()


def _paths(job: Job, images: int, written: Mapping[Path, Path], overwrite: bool) -> list[Path]:
    """Map a job to the path of each of its images; raise ValueError where a path is taken."""
    paths = [job.target]
    if images > 1:
        paths = [job.target.with_stem(f"{job.target.stem}-{index}") for index in range(images)]
    for path in paths:
        if path in written:
            raise ValueError(f"{path} was already written for {written[path]}; rename one of the two")
        if path.exists() and not overwrite:
            raise ValueError(f"{path} exists; {REMEDY}")
    return paths
