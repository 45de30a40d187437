# SPDX-License-Identifier: Apache-2.0
"""Files of latents, or of payloads -> image files; shared by `decode` and `decompress`."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from latentwire_cli.connection import Connection
from latentwire_cli.files import REMEDY, Job, Json, Output, Overwrite, plan
from latentwire_cli.in_flight import run_in_flight
from latentwire_cli.options import option
from latentwire_cli.report import byte_count, print_line
from latentwire_client.client import Client
from latentwire_core.files import write_whole
from latentwire_core.formats import ImageFormat
from latentwire_core.latents import Latents


@dataclass(frozen=True)
class Decoding:
    """The options of both commands: what to write, and where."""

    output: Output
    image_format: Annotated[
        Literal["png", "jpeg", "webp", "avif"],
        typer.Option("--format", help="The format of the images; PNG is lossless."),
    ] = "png"
    quality: Annotated[
        int | None, option(text="The quality of JPEG, WebP or AVIF, 1..100.", default="90; 80 for AVIF", metavar="N")
    ] = None
    overwrite: Overwrite = False
    as_json: Json = False

    def run(
        self,
        connection: Connection,
        files: Iterable[Path],
        suffixes: Collection[str],
        load: Callable[[Path], Latents | bytes],
        what: str,
    ) -> None:
        """Decode each file and write its images, report the failures, and end the command.

        Args:
            connection: the server.
            files: the files, and folders to look through for files of these suffixes.
            suffixes: the suffixes.
            load: maps a file to the latents or the payload that the server decodes.
            what: the name in JSON of what a file holds.
        """
        jobs = plan(files, suffixes, self.output, self._suffix(), self.overwrite)
        results: list[dict[str, object]] = []
        written: dict[Path, Path] = {}

        def work(client: Client, job: Job) -> list[bytes]:
            return client.decode_files(load(job.source), image_format=self.image_format, quality=self.quality)

        def finish(job: Job, images: list[bytes]) -> None:
            paths = _paths(job, len(images), written, self.overwrite)
            for path, data in zip(paths, images, strict=True):
                write_whole(path, data)
            written.update(dict.fromkeys(paths, job.source))
            results.append({what: str(job.source), "images": [str(path) for path in paths]})

        def show() -> None:
            total = byte_count(sum(path.stat().st_size for path in written))
            print_line(f"wrote the images of {len(results)} of {len(jobs)} files to {self.output} ({total})")

        with connection.open() as client:
            batch = run_in_flight(client, "decoding", jobs, work, finish)
        batch.report(results, self.as_json, show)

    def _suffix(self) -> str:
        """Return the suffix of the images; raise BadParameter where the quality does not suit their format."""
        if self.quality is not None and self.image_format == "png":
            raise typer.BadParameter(
                "PNG is lossless and has no quality; take --format jpeg, webp or avif", param_hint="--quality"
            )
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise typer.BadParameter(f"{self.quality} is not in 1..100", param_hint="--quality")
        return ImageFormat(self.image_format).suffix


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
