# SPDX-License-Identifier: Apache-2.0
"""Rows -> comparisons of cases, round by round; the tables and plots of the report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.report.networks import BUNDLED, SD_SIZE, TINY
from benchmarks.report.page import Plots, Table, table
from benchmarks.report.plots import Line, line_plot
from benchmarks.report.rows import Row
from benchmarks.report.timing import Spread, speed_up
from benchmarks.throughput.cases import LATENTWIRE, OPERATIONS

BOTH = "both"  # encode and decode, one after the other
Name = tuple[str, str]  # names of the network and of the case
MIB = 2**20
MEGAPIXEL = 1e6
NOTE = (
    "Medians of one call at a time, from host memory to host memory. TFLOP/s: the arithmetic of the network as "
    "diffusers runs it, divided by the time; an engine that saves operations can exceed the matrix rate. The largest "
    "difference and the PSNR compare with the first case of the same network on the same input. The peak of the PSNR "
    "is 2 for images, and the range of the reference for latents."
)


@dataclass(frozen=True)
class Comparison:
    """How many times as fast a case is as another, by operation and for BOTH."""

    side: int
    faster: Name
    slower: Name
    times: dict[str, Spread]


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """Map rows of any sizes to comparisons of each latentwire case.

    A case is compared with every other case of its network; the bundled model also with AutoencoderTiny, and with the
    SD-size network on the same engine.
    """
    found = []
    for side in sorted({row["width"] for row in rows}):
        taken: dict[Name, dict[str, list[float]]] = {}
        for row in rows:
            if row["width"] == side and "seconds" in row:
                taken.setdefault((row["network"], row["case"]), {})[row["operation"]] = row["seconds"]
        ours = [name for name in taken if name[1].startswith(LATENTWIRE)]
        for faster in ours:
            for slower, seconds in taken.items():
                if slower != faster and _belong(faster, slower):
                    found.append(Comparison(side, faster, slower, _times(seconds, taken[faster])))
    return found


def _belong(faster: Name, slower: Name) -> bool:
    if faster[0] == slower[0]:
        return slower[1] != LATENTWIRE
    return faster[0] == BUNDLED and (slower[0] == TINY or slower == (SD_SIZE, faster[1]))


def _times(slower: dict[str, list[float]], faster: dict[str, list[float]]) -> dict[str, Spread]:
    times = {operation: speed_up(slower[operation], faster[operation]) for operation in OPERATIONS}
    sums = ([sum(pair) for pair in zip(*(each[op] for op in OPERATIONS), strict=True)] for each in (slower, faster))
    return {**times, BOTH: speed_up(*sums)}


def _number(key: str, form: str, divisor: float = 1) -> Callable[[Row], str]:
    """Return a cell; it is empty where a row has no such number: there was nothing to compare with."""
    return lambda row: "" if row.get(key) is None else f"{row[key] / divisor:{form}}"


def _range(spread: Spread, form: str) -> str:
    return f"{spread.low:{form}} to {spread.high:{form}}"


def rate_table(rates: Mapping[int, Mapping[str, Sequence[float]]], threads: int) -> Table:
    """Make the table of the machine's matrix rate while each size was measured."""
    found = [
        (f"{dtype}, while {side}x{side} was measured", Spread.of(taken))
        for side, each in rates.items()
        for dtype, taken in each.items()
    ]
    lines = [[name, f"{spread.median:.3f}", _range(spread, ".3f")] for name, spread in found]
    note = f"The product of two large square matrices, measured in turn with the networks. Threads: {threads}."
    return Table("The machine's matrix rate", ["", "TFLOP/s, median", "lowest to highest"], lines, note)


SIZE_COLUMNS: dict[str, Callable[[Row], str]] = {
    "": lambda row: f"{row['network']}: {row['case']}",
    "seconds": lambda row: "left out" if "left_out" in row else f"{row['median_s']:.4g}",
    "lowest to highest": lambda row: _range(Spread.of(row["seconds"]), ".4g") if "seconds" in row else "",
    "images/s": _number("images_per_s", ".4g"),
    "TFLOP/s": _number("tflop_per_s", ".3f"),
    "of matrix rate": _number("share_of_matrix_rate", ".0%"),
    "difference": _number("largest", ".2g"),
    "PSNR, dB": lambda row: "equal" if row.get("largest") == 0 else _number("psnr_db", ".1f")(row),
}


def size_tables(rows: Sequence[Row]) -> list[Table]:
    """Make the table of each size and operation: the cases one below the other."""
    reasons = dict.fromkeys((row["case"], row["left_out"]) for row in rows if "left_out" in row)
    places: dict[str, list[Row]] = {}
    for row in rows:
        title = f"{row['operation'].capitalize()}, {row['width']}x{row['height']}"
        places.setdefault(title, []).append(row)
    first, *others = (table(title, each, SIZE_COLUMNS) for title, each in places.items())
    note = NOTE + "".join(f" Left out is {case}: {reason}." for case, reason in reasons)
    return [replace(first, note=note), *others]


def comparison_table(found: Iterable[Comparison]) -> Table:
    """Make the table of how many times as fast one case is as another."""

    def times(operation: str) -> Callable[[Comparison], str]:
        return lambda each: f"{each.times[operation].median:.2f} ({_range(each.times[operation], '.2f')})"

    columns: dict[str, Callable[[Comparison], str]] = {
        "": lambda each: f"{each.side}x{each.side}: {': '.join(each.faster)}",
        "as": lambda each: ": ".join(each.slower),
        **{operation: times(operation) for operation in (*OPERATIONS, BOTH)},
    }
    note = "Median over the rounds of the ratio within a round, its lowest and highest; both: encode, then decode."
    return table("How many times as fast", found, columns, note)


def plots(rows: Sequence[Row]) -> Plots:
    """Plot megapixels per second over the side of the images, a line for each case."""
    timed = [row for row in rows if "seconds" in row]
    names = list(dict.fromkeys((row["network"], row["case"]) for row in timed))
    sides = sorted({row["width"] for row in rows})
    drawn = []
    for operation in OPERATIONS:
        lines = []
        for colour, name in enumerate(names):
            own = [row for row in timed if (row["network"], row["case"], row["operation"]) == (*name, operation)]
            rates = [row["images_per_s"] * row["width"] * row["height"] / MEGAPIXEL for row in own]
            lines.append(Line(": ".join(name), [row["width"] for row in own], rates, colour))
        drawn.append(line_plot(lines, "side, pixels", f"{operation}: megapixels/s", ticks=sides, y_limits=(0, None)))
    return Plots("Speed over size", drawn)


def memory_table(rows: Iterable[Row]) -> Table:
    """Make the table of peak memory of the cases."""
    columns: dict[str, Callable[[Row], str]] = {
        "": lambda row: f"{row['network']}: {row['case']}, {row['operation']} {row['width']}x{row['height']}",
        "idle, MiB": _number("idle_bytes", ".0f", MIB),
        "peak above idle, MiB": _number("above_idle_bytes", ".0f", MIB),
    }
    note = "One image, in a process of its own; on a GPU the memory of the GPU. Idle: the network loaded and warm."
    return table("Peak memory", rows, columns, note)


def tiling_table(rows: Sequence[Row]) -> Table:
    """Make the table of memory and time in bounded memory, beside the untiled case."""
    columns: dict[str, Callable[[Row], str]] = {
        "": lambda row: f"{row['operation']} {row['width']}x{row['height']}: {row['case']}",
        "peak above idle, MiB": _number("above_idle_bytes", ".0f", MIB),
        "share of untiled peak": _number("share_of_memory", ".2f"),
        "s/megapixel": _number("seconds_per_megapixel", ".2f"),
        "share of untiled time": _number("share_of_time", ".2f"),
        "largest difference": _number("largest", ".2g"),
        "PSNR, dB": _number("psnr_db", ".1f"),
    }
    note = (
        "One call of each, in processes of their own, one after the other. Idle: the network loaded and warm. The "
        "difference is to the untiled output."
    )
    return table("In bounded memory", rows, columns, note)
