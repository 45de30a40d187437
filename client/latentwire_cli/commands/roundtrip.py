# SPDX-License-Identifier: Apache-2.0
"""`latentwire roundtrip`: image files -> pictures and a table of what encoding and decoding them costs and loses."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from statistics import mean

from rich.table import Table

from latentwire_cli.connection import Connection, connected
from latentwire_cli.conversion import as_seen
from latentwire_cli.files import Images, Job, Json, Output, Overwrite, plan
from latentwire_cli.local import require
from latentwire_cli.picture import AMPLIFICATION, side_by_side
from latentwire_cli.report import Batch, byte_count, make_table, name_cell, print_line, print_table
from latentwire_client.client import Client
from latentwire_client.info import Execution
from latentwire_core.files import write_whole
from latentwire_core.formats import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Row:
    """The measurements of one image, encoded and decoded.

    Attributes:
        image: the file.
        picture: the file with original, reconstruction and difference.
        width, height: pixels of the image as the model saw it: those of the file, or the model's fixed size.
        latent_shape: (C,h,w).
        raw_bytes, file_bytes, latent_bytes: the image as raw RGB; its file; the latents in float16.
        psnr_db: dB; None: the reconstruction is exact.
        ssim: None: a side is below 11 pixels.
        encode, decode: the server's times.
        wall_s: seconds that the client waited for both calls.
    """

    image: str
    picture: str
    width: int
    height: int
    latent_shape: tuple[int, ...]
    raw_bytes: int
    file_bytes: int
    latent_bytes: int
    psnr_db: float | None
    ssim: float | None
    encode: Execution
    decode: Execution
    wall_s: float

    @property
    def ratio(self) -> float:
        """How many times smaller the latents are than the raw image."""
        return self.raw_bytes / self.latent_bytes


@connected()
def roundtrip(
    images: Images,
    output: Output,
    overwrite: Overwrite = False,
    as_json: Json = False,
    *,
    connection: Connection,
) -> None:
    """Encode images, decode them again, and report loss, bytes and milliseconds.

    Writes DIR/NAME.roundtrip.png for each: original | reconstruction | difference. The latents travel as float16.
    """
    require("codec")
    jobs = plan(images, IMAGE_SUFFIXES, output, ".roundtrip.png", overwrite)
    executions: list[Execution] = []
    rows: list[Row] = []
    with (
        connection.open(on_execution=executions.append) as client,
        Batch("there and back", len(jobs)) as batch,
        batch.until_broken_off(),
    ):
        for job in jobs:
            with batch.item(job.source):
                rows.append(_there_and_back(client, job, executions))

    def show() -> None:
        print_table(_loss_table(rows))
        print_line("")
        print_table(_time_table(rows))
        print_line("")
        print_line(f"pictures: {rows[0].picture if len(rows) == 1 else f'{output}/*.roundtrip.png'}")

    results = [{**asdict(row), "latent_shape": list(row.latent_shape), "ratio": row.ratio} for row in rows]
    batch.report(results, as_json, show)


def _there_and_back(client: Client, job: Job, executions: list[Execution]) -> Row:
    data = job.source.read_bytes()
    executions.clear()
    started = time.perf_counter()
    latents = client.encode(data, kind="mode", dtype="float16")
    pixels = client.decode_array(latents)[0].astype("uint8", copy=False)
    wall_s = time.perf_counter() - started

    from latentwire_codec.metrics.scores import psnr, ssim

    original = as_seen(data, latents.image_size)
    height, width = original.shape[:2]
    decibels = psnr(original, pixels)
    similarity = None if min(height, width) < 11 else ssim(original, pixels)
    row = Row(
        image=str(job.source),
        picture=str(job.target),
        width=width,
        height=height,
        latent_shape=latents.values.shape[1:],
        raw_bytes=original.nbytes,
        file_bytes=len(data),
        latent_bytes=latents.nbytes,
        psnr_db=None if math.isinf(decibels) else decibels,
        ssim=similarity,
        encode=executions[0],
        decode=executions[1],
        wall_s=wall_s,
    )
    quality = f"{decibels:.2f} dB" + ("" if similarity is None else f", SSIM {similarity:.3f}")
    captions = (
        f"original {width}x{height}: {byte_count(row.raw_bytes)} of raw RGB",
        f"from {byte_count(row.latent_bytes)} of latents: {quality}",
        f"difference x{AMPLIFICATION}, grey where equal",
    )
    write_whole(job.target, side_by_side(original, pixels, captions))
    return row


def _loss_table(rows: Sequence[Row]) -> Table:
    columns: tuple[tuple[str, Callable[[Row], str]], ...] = (
        ("size", lambda row: f"{row.width}x{row.height}"),
        ("latents", lambda row: "x".join(map(str, row.latent_shape))),
        ("raw RGB", lambda row: byte_count(row.raw_bytes)),
        ("file", lambda row: byte_count(row.file_bytes)),
        ("fp16", lambda row: byte_count(row.latent_bytes)),
        ("ratio", lambda row: f"{row.ratio:.1f}"),
        ("PSNR", lambda row: "inf" if row.psnr_db is None else f"{row.psnr_db:.2f}"),
        ("SSIM", lambda row: "-" if row.ssim is None else f"{row.ssim:.4f}"),
    )
    means = {
        "ratio": _mean("{:.1f}", [row.ratio for row in rows]),
        "PSNR": _mean("{:.2f}", [row.psnr_db for row in rows]),
        "SSIM": _mean("{:.4f}", [row.ssim for row in rows]),
    }
    return _table("Bytes and loss (fp16: the latents; ratio: raw RGB / fp16; PSNR in dB)", rows, columns, means)


def _time_table(rows: Sequence[Row]) -> Table:
    seconds = {
        f"{call}\n{stage}": attrgetter(f"{call}.{stage}_s")
        for call in ("encode", "decode")
        for stage in ("queue", "compute", "coding")
    } | {"both\nwall": attrgetter("wall_s")}
    columns = [(name, partial(_milliseconds, value)) for name, value in seconds.items()]
    means = {name: _mean("{:.1f}", [1000 * value(row) for row in rows]) for name, value in seconds.items()}
    return _table("Milliseconds by stage (wall: what the client waited for)", rows, columns, means)


def _table(
    title: str,
    rows: Sequence[Row],
    columns: Sequence[tuple[str, Callable[[Row], str]]],
    means: Mapping[str, str],
) -> Table:
    """Make a table with a line for each image; for several images, their means stand at its foot."""
    footers = ["mean", *(means.get(name, "") for name, _ in columns)] if len(rows) > 1 else []
    table = make_table(title, "image", [name for name, _ in columns], footers)
    for row in rows:
        table.add_row(name_cell(Path(row.image).name), *(value(row) for _, value in columns))
    return table


def _mean(form: str, values: Sequence[float | None]) -> str:
    """Map numbers to the text of their mean; `-` where one is missing, such as the PSNR of an exact reconstruction."""
    numbers = [value for value in values if value is not None]
    return form.format(mean(numbers)) if len(numbers) == len(values) else "-"


def _milliseconds(value: Callable[[Row], float], row: Row) -> str:
    return f"{1000 * value(row):.1f}"
