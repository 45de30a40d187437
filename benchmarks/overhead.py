# SPDX-License-Identifier: Apache-2.0
"""What the server adds to the model, and how many small requests it answers, beside another checkout.

    python -m benchmarks.overhead [--against CHECKOUT] [--rounds 9] [--out FILE.json]

Each checkout serves one tiny VAE with random weights (f = 8) from a process of its own; all rounds take turns. The
overhead of a request is its duration at the client, from bytes to bytes, less the time that the device computed; the
least of a round counts.
`--against` names the root of another checkout, such as one of the commit before a change.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import grpc.aio
import numpy as np
import torch
from diffusers import AutoencoderKL
from rich.console import Console
from rich.table import Table

from benchmarks.report.photographs import photograph
from latentwire_codec.images import pixels
from latentwire_codec.images.files import write_image
from latentwire_codec.load import load_autoencoder
from latentwire_core.formats import ImageFormat
from latentwire_proto.v1 import latent_codec_pb2 as pb

HERE = Path(__file__).parents[1]
ROUNDS, REQUESTS, IN_FLIGHT, MANY = 9, 12, 16, 160
"""Rounds; requests of a round that are sent one by one; requests in flight, and how many of them in a round."""
LARGE, SMALL = 512, 64
STOP_S = 60
SERVE = """
import sys
from latentwire_server.app import run
from latentwire_server.config import ModelSource, ServerConfig
config = ServerConfig(models=(ModelSource("tiny", sys.argv[1]),), device="cpu", port=0)
run(config, lambda ports: print(ports.grpc, flush=True))
"""


@dataclass(frozen=True)
class Call:
    """One kind of request: the RPC, the request's bytes, and the class of its response."""

    method: str
    request: bytes
    response: type[Any]


def save_model(folder: Path) -> Path:
    """Write a tiny AutoencoderKL with random weights, f = 8 and C = 4, into a folder; return the folder."""
    torch.manual_seed(0)
    vae: Any = AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        mid_block_add_attention=False,
    )
    vae.save_pretrained(folder)
    return folder


def large_calls() -> dict[str, Call]:
    """Return the requests whose overhead is measured: raw pixels to float16 latents, and latents to raw pixels."""
    latents = np.random.default_rng(0).standard_normal((1, 4, LARGE // 8, LARGE // 8)).astype(np.float16)
    values = pb.Tensor(dtype=pb.DTYPE_FLOAT16, shape=latents.shape, data=latents.tobytes())
    decode = pb.DecodeRequest(latents=pb.Latents(values=values, scale=pb.LATENT_SCALE_RAW))
    return {"encode": _encode_raw(LARGE), "decode": Call("Decode", decode.SerializeToString(), pb.DecodeResponse)}


def small_calls() -> dict[str, Call]:
    """Return the requests of which many are in flight: small images, raw and as JPEG files."""
    file = write_image(photograph(SMALL, SMALL), ImageFormat.JPEG)
    request = pb.EncodeRequest(image_file=file)
    return {"raw": _encode_raw(SMALL), "jpeg": Call("Encode", request.SerializeToString(), pb.EncodeResponse)}


@contextmanager
def serving(checkout: Path, model: Path) -> Iterator[str]:
    """Serve a model from a checkout, in a process of its own, while the context lasts; give the address.

    Raises:
        RuntimeError: the server did not start; the text has its log.
    """
    paths = [str(checkout / name) for name in ("client", "codec", "proto", "server")]
    command = [sys.executable, "-P", "-c", SERVE, str(model)]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, stdout=subprocess.PIPE, stderr=log,
            text=True,
        ) as process,
    ):  # fmt: skip
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port:
                log.seek(0)
                raise RuntimeError(f"the server of {checkout} did not start: {log.read().strip()}")
            yield f"127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)


def in_process_ms(model: Path, rounds: int) -> dict[str, float]:
    """Return the median duration of the model alone in this process, in milliseconds, for each large request."""
    autoencoder = load_autoencoder(str(model), device="cpu")
    image = torch.from_numpy(photograph(LARGE, LARGE)).unsqueeze(0)
    latents = autoencoder.encode(pixels.to_float(image)).mode()
    work: dict[str, Callable[[], object]] = {
        "encode": lambda: autoencoder.encode(pixels.to_float(image)).mode().half(),
        "decode": lambda: autoencoder.decode(latents, pixels.to_uint8),
    }
    durations: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, run in work.items():
            started = time.perf_counter()
            run()
            durations[name].append(1000 * (time.perf_counter() - started))
    return {name: median(each) for name, each in durations.items()}


async def measure(targets: Mapping[str, str], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Map the address of each server to its figures, one for each round, which take turns.

    Returns:
        for each server the overhead of `encode` and `decode` in milliseconds, and the rate of `raw` and `jpeg` in
        images a second.
    """
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in targets}
    async with _Channels(targets) as channels:
        # The first round warms up.
        for number in range(rounds + 1):
            order = list(channels.items())
            for server, channel in order if number % 2 else reversed(order):
                figures = {name: await _overhead_ms(channel, call) for name, call in large_calls().items()}
                figures |= {name: await _rate(channel, call) for name, call in small_calls().items()}
                for name, figure in figures.items() if number else ():
                    found[server][name].append(figure)
    return found


class _Channels:
    """A connection to each server."""

    def __init__(self, targets: Mapping[str, str]) -> None:
        self._channels = {name: grpc.aio.insecure_channel(target) for name, target in targets.items()}

    async def __aenter__(self) -> Mapping[str, grpc.aio.Channel]:
        return self._channels

    async def __aexit__(self, *error: object) -> None:
        for channel in self._channels.values():
            await channel.close()


async def _overhead_ms(channel: grpc.aio.Channel, call: Call) -> float:
    send = _sender(channel, call)
    overheads: list[int] = []
    for _ in range(REQUESTS):
        started_ns = time.perf_counter_ns()
        response = await send(call.request)
        overheads.append(time.perf_counter_ns() - started_ns - response.execution.compute_ns)
    # What else the machine does can only add to a duration: the least is the server's own.
    return min(overheads) / 1e6


async def _rate(channel: grpc.aio.Channel, call: Call) -> float:
    send = _sender(channel, call)
    waiting = iter(range(MANY))

    async def send_some() -> None:
        for _ in waiting:
            await send(call.request)

    started = time.perf_counter()
    await asyncio.gather(*(send_some() for _ in range(IN_FLIGHT)))
    return MANY / (time.perf_counter() - started)


def _sender(channel: grpc.aio.Channel, call: Call) -> Callable[[bytes], Awaitable[Any]]:
    path = f"/latentwire.v1.LatentCodecService/{call.method}"
    sender: Any = channel.unary_unary(path, response_deserializer=call.response.FromString)
    return cast(Callable[[bytes], Awaitable[Any]], sender)


def _encode_raw(side: int) -> Call:
    image = photograph(side, side)
    tensor = pb.Tensor(dtype=pb.DTYPE_UINT8, shape=(1, *image.shape), data=image.tobytes())
    request = pb.EncodeRequest(image_tensor=pb.ImageTensor(tensor=tensor, layout=pb.IMAGE_LAYOUT_UINT8_NHWC))
    return Call("Encode", request.SerializeToString(), pb.EncodeResponse)


def table(found: Mapping[str, Mapping[str, Sequence[float]]], alone_ms: Mapping[str, float]) -> Table:
    """Map the figures of each round to medians and, where there are two servers, the median of the rounds' ratios."""
    servers = list(found)
    made = Table("figure", *servers, *(["ratio"] if len(servers) > 1 else []))
    for name in found[servers[0]]:
        unit = "ms over the model" if name in alone_ms else f"images/s of {SMALL}x{SMALL}, {IN_FLIGHT} in flight"
        cells = [f"{median(found[server][name]):.2f}" for server in servers]
        if len(servers) > 1:
            first, second = (found[server][name] for server in servers)
            cells.append(f"{median(one / other for one, other in zip(first, second, strict=True)):.2f}")
        made.add_row(f"{name}: {unit}", *cells)
    for name, milliseconds in alone_ms.items():
        made.add_row(f"{name}: ms of the model in this process", f"{milliseconds:.2f}")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="root of another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where the figures of all rounds go")
    options = parser.parse_args(arguments)
    checkouts = {"here": HERE} | ({"there": options.against} if options.against else {})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        model = save_model(Path(folder) / "tiny")
        targets = {name: servers.enter_context(serving(each, model)) for name, each in checkouts.items()}
        found = asyncio.run(measure(targets, options.rounds))
        alone_ms = in_process_ms(model, options.rounds)
    Console().print(table(found, alone_ms))
    if options.out is not None:
        options.out.write_text(json.dumps({"rounds": found, "in_process_ms": alone_ms}, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
