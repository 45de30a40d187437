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
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import grpc.aio
import numpy as np
import torch

from benchmarks.report.environment import ROOT
from benchmarks.report.networks import random_autoencoder_kl
from benchmarks.report.page import Table
from benchmarks.report.pictures import photograph
from benchmarks.report.timing import speed_up, take_turns, warmed_up
from benchmarks.serving.server import serving
from latentwire_codec.images import pixels
from latentwire_codec.images.writing import write_image
from latentwire_codec.load import load_autoencoder
from latentwire_core.formats import ImageFormat
from latentwire_proto.v1 import latent_codec_pb2 as pb

ROUNDS = 9
REQUESTS, IN_FLIGHT, MANY = 12, 16, 160  # of a round: sent one by one; in flight at once, and of how many
LARGE, SMALL = 512, 64

Call = tuple[str, bytes, type[Any]]  # the RPC, the request's bytes, and the class of the response


def save_model(folder: Path) -> Path:
    """Write a tiny AutoencoderKL with random weights, f = 8 and C = 4, into a folder; return the folder."""
    torch.manual_seed(0)
    config = {"layers_per_block": 1, "norm_num_groups": 2, "mid_block_add_attention": False}
    random_autoencoder_kl((4, 4, 4, 4), **config).save_pretrained(folder)
    return folder


def large_calls() -> dict[str, Call]:
    """Return the requests whose overhead is measured: raw pixels to float16 latents, and latents to raw pixels."""
    latents = np.random.default_rng(0).standard_normal((1, 4, LARGE // 8, LARGE // 8)).astype(np.float16)
    values = pb.Tensor(dtype=pb.DTYPE_FLOAT16, shape=latents.shape, data=latents.tobytes())
    decode = pb.DecodeRequest(latents=pb.Latents(values=values, scale=pb.LATENT_SCALE_RAW))
    return {"encode": _encode_raw(LARGE), "decode": ("Decode", decode.SerializeToString(), pb.DecodeResponse)}


def small_calls() -> dict[str, Call]:
    """Return the requests of which many are in flight: small images, raw and as JPEG files."""
    request = pb.EncodeRequest(image_file=write_image(photograph(SMALL, SMALL), ImageFormat.JPEG))
    return {"raw": _encode_raw(SMALL), "jpeg": ("Encode", request.SerializeToString(), pb.EncodeResponse)}


def _encode_raw(side: int) -> Call:
    image = photograph(side, side)
    tensor = pb.Tensor(dtype=pb.DTYPE_UINT8, shape=(1, *image.shape), data=image.tobytes())
    request = pb.EncodeRequest(image_tensor=pb.ImageTensor(tensor=tensor, layout=pb.IMAGE_LAYOUT_UINT8_NHWC))
    return "Encode", request.SerializeToString(), pb.EncodeResponse


def in_process_ms(model: Path, rounds: int) -> dict[str, float]:
    """Return the median duration of the model alone in this process, in milliseconds, for each large request."""
    autoencoder = load_autoencoder(str(model), device="cpu")
    image = torch.from_numpy(photograph(LARGE, LARGE)).unsqueeze(0)
    latents = autoencoder.encode(pixels.to_float(image)).mode()
    work = {
        "encode": lambda: autoencoder.encode(pixels.to_float(image)).mode().half(),
        "decode": lambda: autoencoder.decode(latents, pixels.to_uint8),
    }
    samples = take_turns(work, {name: warmed_up(call)[1] for name, call in work.items()}, rounds, math.inf)
    return {name: 1000 * median(each) for name, each in samples.items()}


async def measure(targets: Mapping[str, str], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Map the address of each server to its figures, one for each round, which take turns.

    Returns:
        for each server the overhead of `encode` and `decode` in milliseconds, and the rate of `raw` and `jpeg` in
        images a second.
    """
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in targets}
    async with AsyncExitStack() as stack:
        channels = [
            (name, await stack.enter_async_context(grpc.aio.insecure_channel(target)))
            for name, target in targets.items()
        ]
        # The first round warms up.
        for number in range(rounds + 1):
            for server, channel in channels if number % 2 else reversed(channels):
                figures = {name: await _overhead_ms(channel, call) for name, call in large_calls().items()}
                figures |= {name: await _rate(channel, call) for name, call in small_calls().items()}
                for name, figure in figures.items() if number else ():
                    found[server][name].append(figure)
    return found


async def _overhead_ms(channel: grpc.aio.Channel, call: Call) -> float:
    send = _sender(channel, call)
    overheads: list[int] = []
    for _ in range(REQUESTS):
        started_ns = time.perf_counter_ns()
        response = await send(call[1])
        overheads.append(time.perf_counter_ns() - started_ns - response.execution.compute_ns)
    # What else the machine does can only add to a duration: the least is the server's own.
    return min(overheads) / 1e6


async def _rate(channel: grpc.aio.Channel, call: Call) -> float:
    send, waiting = _sender(channel, call), iter(range(MANY))

    async def send_some() -> None:
        for _ in waiting:
            await send(call[1])

    started = time.perf_counter()
    await asyncio.gather(*(send_some() for _ in range(IN_FLIGHT)))
    return MANY / (time.perf_counter() - started)


def _sender(channel: grpc.aio.Channel, call: Call) -> Any:
    method, _, response = call
    path = f"/latentwire.v1.LatentCodecService/{method}"
    sender: Any = channel.unary_unary(path, response_deserializer=response.FromString)
    return sender


def table(found: Mapping[str, Mapping[str, Sequence[float]]], alone_ms: Mapping[str, float]) -> Table:
    """Map the figures of each round to medians and, where there are two servers, the median of the rounds' ratios."""
    servers = list(found)
    rows = []
    for name in found[servers[0]]:
        unit = "ms over the model" if name in alone_ms else f"images/s of {SMALL}x{SMALL}, {IN_FLIGHT} in flight"
        figures = [found[server][name] for server in servers]
        medians = [median(each) for each in figures] + ([speed_up(*figures).median] if len(servers) > 1 else [])
        rows.append([f"{name}: {unit}", *(f"{each:.2f}" for each in medians)])
    columns = ["figure", *servers, *(["ratio"] if len(servers) > 1 else [])]
    for name, alone in alone_ms.items():
        rows.append([f"{name}: ms of the model in this process", f"{alone:.2f}", *[""] * (len(columns) - 2)])
    return Table("Overhead", columns, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="root of another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where the figures of all rounds go")
    options = parser.parse_args(arguments)
    checkouts = {"here": ROOT} | ({"there": options.against} if options.against else {})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        model = save_model(Path(folder) / "tiny")
        flags = ["--model", f"tiny={model}", "--device", "cpu"]
        targets = {name: servers.enter_context(serving(flags, root)).target for name, root in checkouts.items()}
        found = asyncio.run(measure(targets, options.rounds))
        alone_ms = in_process_ms(model, options.rounds)
    print(table(found, alone_ms).markdown())
    if options.out is not None:
        options.out.write_text(json.dumps({"rounds": found, "in_process_ms": alone_ms}, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
