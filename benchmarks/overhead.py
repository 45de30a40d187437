# SPDX-License-Identifier: Apache-2.0
"""What gRPC adds: wall time of a call less the queue, compute and coding time that the answer reports.

    python -m benchmarks.overhead [--calls 30] [--side 512] [--json FILE]

A server in a process of its own with the bundled model, one client, one call at a time, raw uint8 both ways.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from skimage import data

from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub

MIB = 2**20


@dataclass(frozen=True)
class Sample:
    """One call, in milliseconds."""

    wall_ms: float
    server_ms: float

    @property
    def overhead_ms(self) -> float:
        """What the transport and the messages took."""
        return self.wall_ms - self.server_ms


def measure(call: Callable[[], pb.Execution], calls: int) -> list[Sample]:
    """Time `calls` calls after three to warm up."""
    samples = []
    for _ in range(3):
        call()
    for _ in range(calls):
        started = time.perf_counter()
        execution = call()
        wall_ms = (time.perf_counter() - started) * 1e3
        server_ns = execution.queue_ns + execution.compute_ns + execution.coding_ns
        samples.append(Sample(wall_ms, server_ns / 1e6))
    return samples


def photograph(side: int) -> npt.NDArray[np.uint8]:
    """Return a real photograph, uint8 (side,side,3), side a multiple of 8; tiled where it is larger than 512."""
    astronaut: npt.NDArray[np.uint8] = data.astronaut()
    tiles = -(-side // len(astronaut))
    return np.ascontiguousarray(np.tile(astronaut, (tiles, tiles, 1))[:side, :side])


def run(target: str, side: int, calls: int) -> dict[str, list[Sample]]:
    """Measure encode and decode of one image against the server at `target`."""
    channel = grpc.insecure_channel(
        target, [("grpc.max_receive_message_length", 64 * MIB), ("grpc.max_send_message_length", 64 * MIB)]
    )
    stub = LatentCodecServiceStub(channel)
    image = photograph(side)
    latents = pb.Latents()

    def encode() -> pb.Execution:
        tensor = pb.Tensor(dtype=pb.DTYPE_UINT8, shape=(1, side, side, 3), data=image.tobytes())
        raw = pb.ImageTensor(tensor=tensor, layout=pb.IMAGE_LAYOUT_UINT8_NHWC)
        response: pb.EncodeResponse = stub.Encode(pb.EncodeRequest(image_tensor=raw))
        latents.CopyFrom(response.latents)
        np.frombuffer(response.latents.values.data, "<f2").copy()
        return response.execution

    def decode() -> pb.Execution:
        response: pb.DecodeResponse = stub.Decode(pb.DecodeRequest(latents=latents))
        np.frombuffer(response.image_tensor.tensor.data, np.uint8).copy()
        return response.execution

    with channel:
        return {"encode": measure(encode, calls), "decode": measure(decode, calls)}


def main() -> None:
    """Measure, print a table, and write the samples where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=30, help="calls of each kind (default 30)")
    parser.add_argument("--side", type=int, default=512, help="pixels, a multiple of 8 (default 512)")
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    arguments = parser.parse_args()
    command = [str(Path(sys.executable).with_name("latentwire")), "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None  # it is a pipe
            target = server.stdout.readline().split()[-1]
            samples = run(target, arguments.side, arguments.calls)
        finally:
            server.terminate()
    table = Table(title=f"{arguments.side}x{arguments.side}, raw uint8, {arguments.calls} calls, milliseconds")
    for column in ("", "wall, median", "server, median", "overhead, median", "overhead, largest"):
        table.add_column(column, justify="right" if column else "left")
    for name, rows in samples.items():
        table.add_row(
            name,
            *(
                f"{value:.1f}"
                for value in (
                    statistics.median(row.wall_ms for row in rows),
                    statistics.median(row.server_ms for row in rows),
                    statistics.median(row.overhead_ms for row in rows),
                    max(row.overhead_ms for row in rows),
                )
            ),
        )
    Console().print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({name: [asdict(row) for row in rows] for name, rows in samples.items()}))


if __name__ == "__main__":
    main()
