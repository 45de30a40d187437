# SPDX-License-Identifier: Apache-2.0
"""How fast a server answers, beside the same model in this process, measured in turn.

    python -m benchmarks.serving [--model f8c4] [--sizes 256 512 ...] [--concurrency 1 4 16 64] [--out OUT]
    python -m benchmarks.serving --model sd-size
    python -m benchmarks.serving --soak 2000

Server and clients run in processes of their own. Closed loops give images per second, latency, the overhead of the
transport, bytes and the server's memory; open loops (Poisson arrivals at a share of the capacity) p50, p95 and p99;
streams of a folder how busy the device is. --soak measures instead whether the server's memory stays flat over many
mixed requests. --device takes several devices with commas, one for each worker. Writes run.json, report.md and
report.html.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.report import arguments as shared
from benchmarks.report.arguments import OUTPUT, listed, positive
from benchmarks.report.environment import environment
from benchmarks.report.networks import BUNDLED, SD_SIZE, Network, prepare
from benchmarks.report.page import Page
from benchmarks.report.rows import Row
from benchmarks.report.run import publish
from benchmarks.report.timing import steps
from benchmarks.serving import summary
from benchmarks.serving.caller import SETTLING
from benchmarks.serving.callers import callers
from benchmarks.serving.forms import DEFAULT_FORMS, FORMS, OPERATIONS
from benchmarks.serving.measuring import Bench, InProcess, stream_length
from benchmarks.serving.server import Served, serving
from benchmarks.serving.statistics import Drift
from latentwire_codec.load import MEASURED, load_autoencoder
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_core.errors import ModelError

BENCHMARK = "serving"
SIZES, CONCURRENCIES = (256, 512, 1024, 2048), (1, 4, 16, 64)
SD_SIZES, SD_CONCURRENCIES = (512,), (1, 4)
CALLERS_A_WORKER = 4
SOAK_SIZES = (64, 128, 192, 256, 384, 512)
SOAK_THREADS = 4
AVERAGED = 100
FLAT = 0.03  # the largest change of the server's memory over a soak, as a share


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = shared.parser(BENCHMARK, __doc__, "NAME-MODEL")
    add = made.add_argument
    models = f"{BUNDLED}, {SD_SIZE} (Stable Diffusion's AutoencoderKL, random weights), or a diffusers folder"
    sizes = f"pixels (default {listed(SIZES)}; {SD_SIZE}: {listed(SD_SIZES)})"
    calls = f"calls in flight (default {listed(CONCURRENCIES)}; {SD_SIZE}: {listed(SD_CONCURRENCIES)})"
    processes = (
        "processes that share the calls in flight; a worker serves whole connections, one for each process "
        f"(default 1, with workers {CALLERS_A_WORKER} for each)"
    )
    add("--model", default=BUNDLED, metavar="NAME", help=models)
    add("--sizes", nargs="+", type=int, metavar="SIDE", help=sizes)
    add("--concurrency", nargs="+", type=int, metavar="CALLS", help=calls)
    add("--forms", nargs="+", choices=FORMS, default=DEFAULT_FORMS, help="forms of requests")
    add("--shares", nargs="*", type=float, default=(0.5, 0.8), help="shares of the capacity, for open loops")
    add("--seconds", type=float, default=4.0, help="for each closed loop")
    add("--client-processes", type=int, help=processes)
    add("--in-flight", type=int, default=8, help="items of a stream in flight")
    add("--dtype", default="auto", help=shared.DTYPES)
    add("--workers", type=positive, default=1, help="`serve --workers`")
    add("--max-message-mib", type=int, default=64, help="limit of server and clients")
    add("--soak", type=int, metavar="REQUESTS", help="measure this instead, such as 2000")
    return made


def flags(network: Network, options: argparse.Namespace) -> list[str]:
    """Return the flags of the server."""
    found = ["--model", f"{network.name}={network.source}", "--device", options.device, "--dtype", options.dtype]
    found += ["--max-message-mib", f"{options.max_message_mib}"]
    return found + (["--workers", f"{options.workers}"] if options.workers > 1 else [])


def load(network: Network, options: argparse.Namespace) -> Autoencoder:
    """Load the model in this process, on the first of the server's devices, to run as the server runs it."""
    dtype = MEASURED if options.dtype == "auto" else options.dtype
    return load_autoencoder(network.source, device=options.device.partition(",")[0], dtype=dtype)


def measure(network: Network, served: Served, options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Page]:
    """Measure every size; return the summary and rows of run.json, and the page."""
    is_sd = network.name == SD_SIZE
    sizes = sorted(options.sizes or (SD_SIZES if is_sd else SIZES))
    options.concurrency = options.concurrency or (SD_CONCURRENCIES if is_sd else CONCURRENCIES)
    model = load(network, options)
    workers = max(options.workers, len(options.device.split(",")))
    processes = options.client_processes or (1 if workers == 1 else CALLERS_A_WORKER * workers)
    rows: list[Row] = []
    points = len(options.forms) * len(options.concurrency) + len(OPERATIONS) * (len(options.shares) + 1)
    with callers(processes) as members, steps(points * len(sizes)) as step:
        for side in sizes:
            local = InProcess.of(model, side)
            fastest = max(local.rate(operation, 0) for operation in OPERATIONS)
            inputs = local.write(folder / f"{side}", 2 * stream_length(fastest, options.seconds))
            rows += Bench(served, members, options, workers, step, local, inputs).measure()
    spec = model.spec
    lead = f"{network.name} on {spec.device} in {spec.dtype}. Workers: {workers}; client processes: {processes}."
    content = {"summary": {"device": spec.device, "dtype": spec.dtype}, "rows": rows}
    return content, Page(f"Serving {network.name}", lead, summary.blocks(rows))


def soak(network: Network, served: Served, options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Page]:
    """Make many mixed requests; return what `measure` returns."""
    model = load(network, options)
    sizes = options.sizes or SOAK_SIZES
    folders = [str(InProcess.of(model, side).write(folder / f"{side}", 0)) for side in sizes]
    task = {"kind": "soak", "target": served.target, "pid": served.pid, "folders": folders, "count": options.soak}
    with callers(1) as (caller,), steps(1) as step:
        step(f"{options.soak} requests")
        found = caller.run({**task, "threads": SOAK_THREADS, "seed": 0})
    samples = found.pop("resident_bytes")
    drift = Drift.of(samples, AVERAGED)
    memory = {"first_bytes": drift.first, "last_bytes": drift.last, "ratio": drift.ratio}
    outcome = {"requests": options.soak, **found, **memory, "flat": abs(drift.ratio - 1) <= FLAT}
    rows = [{"request": SETTLING + number, "resident_bytes": each} for number, each in enumerate(samples, 1)]
    lead = f"{network.name}, {SOAK_THREADS} requests at a time, images of {listed(sizes)} pixels a side."
    blocks = summary.soak_blocks(outcome, samples, SETTLING + 1)
    return {"summary": outcome, "rows": rows}, Page(f"Memory of a server of {network.name}", lead, blocks)


def main(arguments: list[str] | None = None) -> None:
    """Measure and publish; end with status 1 where a soak found memory that was not flat, or a wrong outcome."""
    made = parser()
    options = made.parse_args(arguments)
    parameters = {name: value for name, value in vars(options).items() if name != "out" and value is not None}
    least = SETTLING + 2 * AVERAGED
    if options.soak is not None and options.soak < least:
        made.error(f"--soak is {options.soak}; the means at both ends need at least {least} requests")
    found = environment(BENCHMARK)
    name = f"{BENCHMARK}-{Path(options.model).name}" + ("-soak" if options.soak else "")
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            network = prepare(options.model, folder)
            served = stack.enter_context(serving(flags(network, options)))
            content, page = (soak if options.soak else measure)(network, served, options, folder)
    except (ModelError, RuntimeError) as error:
        sys.exit(str(error))
    publish(BENCHMARK, found, {"parameters": parameters, **content}, page, options.out or OUTPUT / name)
    if options.soak and not (content["summary"]["flat"] and not content["summary"]["surprises"]):
        sys.exit("the memory was not flat, or a request ended as it should not")


if __name__ == "__main__":
    main()
