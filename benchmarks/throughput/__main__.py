# SPDX-License-Identifier: Apache-2.0
"""How fast networks run in this process: diffusers as its users run it, and latentwire, side by side in one run.

    python -m benchmarks.throughput [--models f8c4 sd-size] [--sizes 256 512 ...] [--memory] [--out OUT]
    python -m benchmarks.throughput --tiling 2048 [--activation-memory 1024]

Medians over rounds in which the cases take turns, ratios within each round, the machine's matrix rate and the share
of it that each case reaches, and the error against diffusers in float32. The second form measures one large image:
peak memory, time and error of exact tiling beside diffusers untiled and tiled. Writes run.json, report.md and
report.html.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import diffusers
import torch

from benchmarks.report import arguments as shared
from benchmarks.report.arguments import OUTPUT, listed, positive
from benchmarks.report.environment import environment
from benchmarks.report.networks import BUNDLED, SD_SIZE, TINY, Network, prepare
from benchmarks.report.page import Block, Lines, Page
from benchmarks.report.rows import Row
from benchmarks.report.run import publish
from benchmarks.report.timing import steps
from benchmarks.throughput import summary as parts
from benchmarks.throughput.apart import Task, Tiling, can_measure, measure_tiling, run_apart
from benchmarks.throughput.cases import EAGER, OPERATIONS, Case, Runner, matrix_products, of_network
from benchmarks.throughput.measuring import measure_size
from benchmarks.throughput.summary import comparisons
from latentwire_codec.runtime.placement import Placement
from latentwire_core.errors import ModelError

BENCHMARK = "throughput"
SIZES, SD_SIZES = (256, 512, 1024, 2048), (512,)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = shared.parser(BENCHMARK, __doc__)
    add = made.add_argument
    models = f"{BUNDLED} (beside AutoencoderTiny), {SD_SIZE} (Stable Diffusion's AutoencoderKL, random weights), or a "
    models += "diffusers folder"
    sizes = f"pixels (default {listed(SIZES)}; {SD_SIZE}: {listed(SD_SIZES)})"
    add("--models", nargs="+", default=[BUNDLED, SD_SIZE], metavar="NAME", help=models)
    add("--sizes", nargs="+", type=int, metavar="SIDE", help=sizes)
    add("--repeats", type=positive, default=5, help="rounds at each size, at least 3")
    add("--seconds", type=float, default=300.0, help="for the rounds of one size; three rounds run always")
    add("--batch", type=positive, default=1, help="images in one call")
    add("--threads", type=positive, default=torch.get_num_threads(), help="threads of torch")
    add("--emulated", action="store_true", help="bfloat16 also where this CPU has no instructions for it")
    add("--memory", action="store_true", help="measure peak memory too, in a process for each case")
    add("--tiling", type=int, metavar="SIDE", help="measure this instead, such as 2048")
    add("--operations", nargs="+", choices=OPERATIONS, default=OPERATIONS, help="operations of --tiling")
    add("--activation-memory", type=int, default=1024, metavar="MIB", help="latentwire's limit with --tiling")
    add("--dtype", default="float32", help="dtype of all cases of --tiling")
    return made


def sizes_of(name: str, options: argparse.Namespace) -> Sequence[int]:
    """Return the sides at which a network is measured."""
    return options.sizes or (SD_SIZES if name == SD_SIZE else SIZES)


def cases_at(side: int, networks: Sequence[Network], options: argparse.Namespace, tiny: Network | None) -> list[Case]:
    """Return the cases of one size, AutoencoderTiny beside the bundled model."""
    found = []
    for network in networks:
        if side in sizes_of(network.name, options):
            found += of_network(network)
            if network.name == BUNDLED and tiny is not None:
                found += [case for case in of_network(tiny) if case.engine == EAGER]
    return found


def measure(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Page]:
    """Measure every size; return what run.json holds beside the environment, and the page."""
    networks = [prepare(name, folder) for name in options.models]
    tiny = prepare(TINY, folder) if BUNDLED in options.models else None
    sides = sorted({side for network in networks for side in sizes_of(network.name, options)})
    at = {side: cases_at(side, networks, options, tiny) for side in sides}
    runners: dict[tuple[str, str], Runner | str] = {}
    rows: list[Row] = []
    rates: dict[int, dict[str, list[float]]] = {}
    with steps(1 + len(sides) * (1 + options.repeats)) as step:
        step("loading")
        for case in chain.from_iterable(at.values()):
            if case.key not in runners:
                runners[case.key] = case.refusal(options.device, options.emulated) or case.load(options.device)
        products = matrix_products(options.device, options.emulated)
        for side, cases in at.items():
            measured, rates[side] = measure_size(options, products, side, cases, runners, step)
            rows += measured
    found = comparisons(rows)
    compared = parts.comparison_table(found)
    blocks: list[Block] = [parts.rate_table(rates, options.threads), compared, *parts.size_tables(rows)]
    footprints: list[Row] = []
    if options.memory:
        ran = {side: [case for case in cases if not isinstance(runners[case.key], str)] for side, cases in at.items()}
        runners.clear()  # loaded models would take the memory of the processes
        footprints = _footprints(ran, options)
        blocks.append(parts.memory_table(footprints))
    blocks.append(parts.plots(rows))
    names = ", ".join(network.name for network in networks)
    device = Placement.choose(options.device).device
    lead = f"{names} in one process on {device}. Threads: {options.threads}; images in a call: {options.batch}."
    content = {
        "parameters": _parameters(options, "models", "repeats", "seconds", "batch", "emulated"),
        "summary": {
            "matrix_tflop_per_s": {f"{side}": each for side, each in rates.items()},
            "comparisons": [asdict(each) for each in found],
        },
        "rows": rows,
        "memory": footprints,
    }
    return content, Page(f"Throughput of {names}", lead, blocks)


def _footprints(at: Mapping[int, Sequence[Case]], options: argparse.Namespace) -> list[Row]:
    """Map the cases of each size to rows with the memory of each operation."""
    rows = []
    with steps(len(OPERATIONS) * sum(map(len, at.values()))) as step:
        for side, case in ((side, case) for side, cases in at.items() for case in cases):
            for operation in OPERATIONS:
                step(f"{side}x{side}: memory of {': '.join(case.key)}, {operation}")
                footprint = run_apart(Task(case, operation, side, options.device, options.threads))
                rows.append({**case.row(operation, side, side), **asdict(footprint)})
    return rows


def measure_one(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Page]:
    """Measure a large image of each network in bounded memory; return as `measure` does."""
    rows: list[Row] = []
    failures: dict[str, str] = {}
    how = (options.tiling, options.dtype, options.activation_memory, options.device, options.threads)
    plans = [Tiling(prepare(name, folder), *how) for name in options.models]
    with steps(sum(len(plan.cases) for plan in plans) * len(options.operations)) as step:
        for plan in plans:
            measured, failed = measure_tiling(plan, options.operations, folder, step)
            rows += measured
            failures |= failed
    names = ", ".join(options.models)
    lead = f"{names} at {options.tiling}x{options.tiling} on {options.device}, {options.threads} threads."
    page = Page(f"{names} in bounded memory", lead, [parts.tiling_table(rows)])
    if failures:
        page.blocks.append(Lines("What failed", [f"{case}: {reason}" for case, reason in failures.items()]))
    parameters = _parameters(options, "models", "tiling", "operations", "activation_memory", "dtype")
    return {"parameters": parameters, "summary": {"failures": failures}, "rows": rows}, page


def _parameters(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in (*names, "device", "threads")}


def main(arguments: list[str] | None = None) -> None:
    """Measure and publish."""
    made = parser()
    options = made.parse_args(arguments)
    if (options.memory or options.tiling) and not can_measure():
        made.error("--memory and --tiling read peaks of memory from /proc, which this system does not have")
    torch.set_num_threads(options.threads)
    diffusers.utils.logging.set_verbosity_error()  # AutoencoderTiny warns about its own configuration
    found = environment(BENCHMARK)
    name = f"{BENCHMARK}-tiling" if options.tiling else BENCHMARK
    with tempfile.TemporaryDirectory() as folder:
        try:
            content, page = (measure_one if options.tiling else measure)(options, Path(folder))
        except ModelError as error:
            sys.exit(str(error))
    publish(BENCHMARK, found, content, page, options.out or OUTPUT / name)


if __name__ == "__main__":
    main()
