# SPDX-License-Identifier: Apache-2.0
"""A server and one size of images -> rows: closed loops beside the model in this process, open loops, streams."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.report.rows import Row
from benchmarks.serving.callers import Caller, in_closed_loop, in_open_loop
from benchmarks.serving.forms import OPERATIONS, RAW, Form
from benchmarks.serving.inputs import InProcess
from benchmarks.serving.server import Served
from benchmarks.serving.statistics import Percentiles, Window, arrivals
from benchmarks.serving.wire import messages

MIB = 2**20
LEAST_ANSWERS = 3
WARM_SHARE = 0.2
"""Seconds of warming up before a closed loop counts, as a share of its seconds."""
OPEN_LEAST, OPEN_THREADS, OPEN_LIMIT_S = 30, 128, 60.0
STREAM_LEAST = 8


@dataclass(frozen=True)
class Bench:
    """What is measured, and with what.

    Attributes:
        served: the server.
        members: client processes.
        message_mib: the largest message.
        seconds: seconds of each closed loop once it is warm; the model in this process gets half as many.
        concurrencies: calls in flight.
        forms: names of requests.
        shares: arrivals of the open loops, as shares of the capacity.
        devices: devices that share the work; their times in the model add up.
        in_flight: items of a stream in flight.
        step: takes the name of each step that begins.
    """

    served: Served
    members: Sequence[Caller]
    message_mib: int
    seconds: float
    concurrencies: Sequence[int]
    forms: Sequence[str]
    shares: Sequence[float]
    devices: int
    in_flight: int
    step: Callable[[str], None]

    def task(self, kind: str, folder: Path, **more: Any) -> dict[str, Any]:
        """Return a task for a client process."""
        common = {"kind": kind, "target": self.served.target, "message_mib": self.message_mib, "folder": str(folder)}
        return {**common, **more}


def measure_size(bench: Bench, local: InProcess, folder: Path) -> list[Row]:
    """Measure everything at one size.

    Args:
        bench: what is measured, and with what.
        local: the model in this process, at this size.
        folder: inputs of clients, as `InProcess.write` writes them.
    """
    rows: list[Row] = []
    for operation in OPERATIONS:
        forms = [form for form in map(Form.of, bench.forms) if form.operation == operation]
        if not forms:
            continue
        closed = _closed_loops(bench, local, folder, operation, forms)
        rows += closed
        capacity = max(row["images_per_s"] for row in closed if row["form"] == closed[0]["form"])
        rows += [_open_loop(bench, local, folder, forms[0], share, capacity) for share in bench.shares]
        rows.append(_stream(bench, local, folder, operation))
    return rows


def _closed_loops(bench: Bench, local: InProcess, folder: Path, operation: str, forms: Sequence[Form]) -> list[Row]:
    """Measure each form at each concurrency, and this process before and after each."""
    rows = []
    before = local.rate(operation, bench.seconds / 2)
    for form in forms:
        size = messages(bench.served.target, form, folder, bench.message_mib * MIB)
        for concurrency in bench.concurrencies:
            bench.step(f"{_sides(local)} {form.name}, {concurrency} in flight")
            task = bench.task(
                "closed", folder, form=form.name, warm_s=WARM_SHARE * bench.seconds, seconds=bench.seconds,
                least=LEAST_ANSWERS,
            )  # fmt: skip
            found = in_closed_loop(bench.members, task, concurrency)
            bench.served.wait_until_idle()
            after = local.rate(operation, bench.seconds / 2)
            row = {**_named("closed", local, form), "concurrency": concurrency, "errors": found["errors"]}
            row |= closed_row(found["calls"], found["warm_s"], fmean((before, after)), bench.devices)
            rows.append({**row, **asdict(size), "peak_bytes": bench.served.peak_bytes()})
            before = after
    return rows


def closed_row(calls: Sequence[Mapping[str, float]], warm_s: float, in_process: float, devices: int) -> dict[str, Any]:
    """Map the answers of a closed loop to its numbers.

    Args:
        calls: calls in the order of their answers, with the fields of `caller.Call`.
        warm_s: moment when the loop was warm.
        in_process: images per second of the model in this process, before and after the loop.
        devices: devices that shared the work.
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


def _open_loop(bench: Bench, local: InProcess, folder: Path, form: Form, share: float, capacity: float) -> Row:
    """Send requests at a share of the capacity without waiting for answers."""
    bench.step(f"{_sides(local)} {form.name}, arrivals at {100 * share:.0f}% of the capacity")
    rate = share * capacity
    count = max(OPEN_LEAST, round(rate * bench.seconds * 2))
    row = {**_named("open", local, form), "share": share, "arrivals_per_s": rate}
    if count / rate > OPEN_LIMIT_S:
        return {**row, "left_out": f"{count} arrivals would take {count / rate:.0f} s, more than {OPEN_LIMIT_S:.0f} s"}
    moments = arrivals(rate, count, seed=round(100 * share))
    task = bench.task("open", folder, form=form.name, threads=OPEN_THREADS)
    found = in_open_loop(bench.members, task, moments)
    latencies = [call["ended_s"] - call["due_s"] for call in found["calls"]]
    return {**row, "errors": found["errors"], "latency_s": asdict(Percentiles.of(latencies)) if latencies else None}


def _stream(bench: Bench, local: InProcess, folder: Path, operation: str) -> Row:
    """Send a folder through one stream of one client."""
    bench.step(f"{_sides(local)} a stream to {operation}")
    before = local.rate(operation, bench.seconds / 2)
    task = bench.task(
        "stream", folder, operation=operation, in_flight=bench.in_flight, count=stream_length(before, bench.seconds)
    )
    found = bench.members[0].run(task)
    in_process = fmean((before, local.rate(operation, bench.seconds / 2)))
    rate = len(found["calls"]) / found["wall_s"]
    return {
        **_named("stream", local, Form(operation, "jpeg" if operation == "encode" else RAW)),
        "errors": found["errors"],
        "answers": len(found["calls"]),
        "wall_s": found["wall_s"],
        "images_per_s": rate,
        "in_process_images_per_s": in_process,
        "ratio": rate / in_process,
        "busy_share": sum(call["compute_s"] for call in found["calls"]) / found["wall_s"] / bench.devices,
        "peak_bytes": bench.served.peak_bytes(),
    }


def stream_length(rate: float, seconds: float) -> int:
    """Map images per second to the length of a stream: twice the images of `seconds`, at least STREAM_LEAST."""
    return max(STREAM_LEAST, round(2 * rate * seconds))


def _named(kind: str, local: InProcess, form: Form) -> Row:
    height, width = local.image.shape[:2]
    return {
        "kind": kind, "width": width, "height": height, "form": form.name, "operation": form.operation,
    }  # fmt: skip


def _sides(local: InProcess) -> str:
    return f"{local.image.shape[1]}x{local.image.shape[0]}"
