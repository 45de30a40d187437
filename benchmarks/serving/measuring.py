# SPDX-License-Identifier: Apache-2.0
"""A server and one size of images -> rows: closed loops beside the model in this process, open loops, streams."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from benchmarks.report.pictures import photograph
from benchmarks.report.rows import Row
from benchmarks.report.timing import Step
from benchmarks.serving.callers import Caller, in_closed_loop, in_open_loop
from benchmarks.serving.forms import IMAGE, LATENTS, OPERATIONS, RAW, Form, messages
from benchmarks.serving.server import Served
from benchmarks.serving.statistics import Percentiles, Window, arrivals
from latentwire_client import Latents
from latentwire_codec.images import pixels
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.runtime.autoencoder import Autoencoder

JPEG_QUALITY = 90
SHIFT = 24  # pixels by which one image of a stream differs from the next
MIB = 2**20
LEAST_ANSWERS = 3
WARM_SHARE = 0.2  # seconds of warming up before a closed loop counts, as a share of its seconds
OPEN_LEAST, OPEN_THREADS, OPEN_LIMIT_S = 30, 128, 60.0
STREAM_LEAST = 8


@dataclass(frozen=True)
class InProcess:
    """A model in this process, from the arrays that a client sends to the arrays that it receives."""

    model: Autoencoder  # loaded with the server's settings
    image: Pixels  # uint8 (H,W,3)
    latents: npt.NDArray[np.float16]  # (1,C,h,w)

    @classmethod
    def of(cls, model: Autoencoder, side: int) -> "InProcess":
        """Take a photograph of `side` pixels a side, and encode it."""
        image = photograph(side, side)
        return cls(model, image, _encode(model, image))

    def rate(self, operation: str, seconds: float) -> float:
        """Return images per second, one after the other, over `seconds` and at least one image."""
        work: Callable[[], object] = self.encode if operation == "encode" else self.decode
        begun = time.perf_counter()
        done, elapsed = 0, 0.0
        while not done or elapsed < seconds:
            work()
            done, elapsed = done + 1, time.perf_counter() - begun
        return done / elapsed

    def encode(self) -> npt.NDArray[np.float16]:
        """Map the image to its latents."""
        return _encode(self.model, self.image)

    def decode(self) -> Pixels:
        """Map the latents to an image."""
        decoded: Pixels = self.model.decode(torch.from_numpy(self.latents).float(), pixels.to_uint8)[0].numpy()
        return decoded

    def write(self, folder: Path, stream_images: int) -> Path:
        """Write the inputs of clients into a folder, with `stream_images` different images; return the folder."""
        (folder / "stream").mkdir(parents=True)
        np.save(folder / f"{IMAGE}.npy", self.image)
        for carrier in ("jpeg", "png"):
            Image.fromarray(self.image).save(folder / f"{IMAGE}.{carrier}", quality=JPEG_QUALITY)
        for number in range(stream_images):
            rolled = Image.fromarray(np.roll(self.image, number * SHIFT, axis=1))
            rolled.save(folder / "stream" / f"{number:04}.jpeg", quality=JPEG_QUALITY)
        spec = self.model.spec
        space, digest, size = spec.latent_space, spec.weights_digest, self.image.shape[:2]
        Latents(self.latents, image_size=size, latent_space=space, weights_digest=digest).save(folder / LATENTS)
        return folder


def _encode(model: Autoencoder, image: Pixels) -> npt.NDArray[np.float16]:
    latents = model.encode(pixels.to_float(torch.from_numpy(image).unsqueeze(0))).mode()
    found: npt.NDArray[np.float16] = latents.half().numpy()
    return found


@dataclass(frozen=True)
class Bench:
    """What is measured at one size, and with what."""

    served: Served
    members: Sequence[Caller]  # client processes
    options: argparse.Namespace  # of the command line, with its sizes and concurrencies
    devices: int  # devices that share the work; their times in the model add up
    step: Step
    local: InProcess  # the model in this process
    folder: Path  # inputs of clients, as `InProcess.write` writes them

    def task(self, kind: str, **more: Any) -> dict[str, Any]:
        """Return a task for a client process."""
        common = {"target": self.served.target, "message_mib": self.options.max_message_mib}
        return {"kind": kind, "folder": str(self.folder), **common, **more}

    def rate(self, operation: str) -> float:
        """Return images per second of the model in this process, for half the seconds of a closed loop."""
        return self.local.rate(operation, self.options.seconds / 2)

    def begin(self, kind: str, form: Form, step: str) -> Row:
        """Tell that a step begins, and return the first fields of its row."""
        height, width = self.local.image.shape[:2]
        self.step(f"{width}x{height} {step}")
        return {"kind": kind, "width": width, "height": height, "form": form.name, "operation": form.operation}

    def measure(self) -> list[Row]:
        """Measure everything."""
        rows: list[Row] = []
        for operation in OPERATIONS:
            forms = [form for form in map(Form.of, self.options.forms) if form.operation == operation]
            if not forms:
                continue
            closed = self._closed_loops(operation, forms)
            capacity = max(row["images_per_s"] for row in closed if row["form"] == closed[0]["form"])
            rows += closed
            rows += [self._open_loop(forms[0], share, capacity) for share in self.options.shares]
            rows.append(self._stream(operation))
        return rows

    def _closed_loops(self, operation: str, forms: Sequence[Form]) -> list[Row]:
        """Measure each form at each concurrency, and this process before and after each."""
        rows, seconds = [], self.options.seconds
        before = self.rate(operation)
        for form in forms:
            size = messages(self.served.target, form, self.folder, self.options.max_message_mib * MIB)
            for concurrency in self.options.concurrency:
                row = self.begin("closed", form, f"{form.name}, {concurrency} in flight")
                times = {"warm_s": WARM_SHARE * seconds, "seconds": seconds, "least": LEAST_ANSWERS}
                found = in_closed_loop(self.members, self.task("closed", form=form.name, **times), concurrency)
                self.served.wait_until_idle()
                after = self.rate(operation)
                row |= {"concurrency": concurrency, "errors": found["errors"], **asdict(size)}
                row |= closed_row(found["calls"], found["warm_s"], fmean((before, after)), self.devices)
                rows.append({**row, "peak_bytes": self.served.peak_bytes()})
                before = after
        return rows

    def _open_loop(self, form: Form, share: float, capacity: float) -> Row:
        """Send requests at a share of the capacity without waiting for answers."""
        row = self.begin("open", form, f"{form.name}, arrivals at {100 * share:.0f}% of the capacity")
        rate = share * capacity
        count = max(OPEN_LEAST, round(rate * self.options.seconds * 2))
        row |= {"share": share, "arrivals_per_s": rate}
        if count / rate > OPEN_LIMIT_S:
            reason = f"{count} arrivals would take {count / rate:.0f} s, more than {OPEN_LIMIT_S:.0f} s"
            return {**row, "left_out": reason}
        task = self.task("open", form=form.name, threads=OPEN_THREADS)
        found = in_open_loop(self.members, task, arrivals(rate, count, seed=round(100 * share)))
        latencies = [call["ended_s"] - call["due_s"] for call in found["calls"]]
        return {**row, "errors": found["errors"], "latency_s": asdict(Percentiles.of(latencies)) if latencies else None}

    def _stream(self, operation: str) -> Row:
        """Send a folder through one stream of one client."""
        row = self.begin(
            "stream", Form(operation, "jpeg" if operation == "encode" else RAW), f"a stream to {operation}"
        )
        before = self.rate(operation)
        count = stream_length(before, self.options.seconds)
        found = self.members[0].run(
            self.task("stream", operation=operation, in_flight=self.options.in_flight, count=count)
        )
        in_process = fmean((before, self.rate(operation)))
        rate = len(found["calls"]) / found["wall_s"]
        return {
            **row,
            "errors": found["errors"],
            "answers": len(found["calls"]),
            "wall_s": found["wall_s"],
            "images_per_s": rate,
            "in_process_images_per_s": in_process,
            "ratio": rate / in_process,
            "busy_share": sum(call["compute_s"] for call in found["calls"]) / found["wall_s"] / self.devices,
            "peak_bytes": self.served.peak_bytes(),
        }


def closed_row(calls: Sequence[Mapping[str, float]], warm_s: float, in_process: float, devices: int) -> dict[str, Any]:
    """Map the answers of a closed loop, as `caller.Log` describes them, in their order, to the numbers of a row.

    `warm_s` is the moment when the loop was warm, `in_process` images per second of the model in this process.
    """
    window = Window.of([call["ended_s"] for call in calls], warm_s)
    if window is None:
        raise RuntimeError(f"{len(calls)} calls were answered, too few for a rate; the server may refuse them")
    counted = [call for call in calls if window.begun_s < call["ended_s"] <= window.ended_s]
    length = window.ended_s - window.begun_s
    walls = [call["ended_s"] - call["due_s"] for call in counted]
    return {
        "answers": window.answers,
        "window_s": length,
        "images_per_s": window.rate,
        "in_process_images_per_s": in_process,
        "ratio": window.rate / in_process,
        "busy_share": sum(call["compute_s"] for call in counted) / length / devices,
        "latency_s": asdict(Percentiles.of(walls)),
        "overhead_s": median(wall - call["server_s"] for wall, call in zip(walls, counted, strict=True)),
    }


def stream_length(rate: float, seconds: float) -> int:
    """Map images per second to the length of a stream: twice the images of `seconds`, at least STREAM_LEAST."""
    return max(STREAM_LEAST, round(2 * rate * seconds))
