# SPDX-License-Identifier: Apache-2.0
"""Rows -> the tables and plots of the report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from benchmarks.report.page import Plots, Table, table
from benchmarks.report.plots import Line, line_plot
from benchmarks.report.rows import Row
from benchmarks.report.timing import Spread
from benchmarks.throughput.cases import OPERATIONS
from benchmarks.throughput.comparisons import BOTH, Comparison

MIB = 2**20
MEGAPIXEL = 1e6
NOTE = (
    "Medians of one call at a time, from host memory to host memory. TFLOP/s: the arithmetic of the network as "
    "diffusers runs it, divided by the time; an engine that saves operations can exceed the matrix rate. The largest "
    "difference and the PSNR compare with the first case of the same network on the same input. The peak of the PSNR "
    "is 2 for images, and the range of the reference for latents."
)


def rate_table(rates: Mapping[int, Mapping[str, Sequence[float]]], threads: int) -> Table:
    """Make the table of the machine's matrix rate while each size was measured."""
    lines = [
        [f"{dtype}, while {side}x{side} was measured", *_median_and_range(Spread.of(taken), ".3f")]
        for side, each in rates.items()
        for dtype, taken in each.items()
    ]
    note = f"The product of two large square matrices, in turn with the networks. Threads: {threads}."
    return Table("The machine's matrix rate", ["", "TFLOP/s, median", "lowest to highest"], lines, note)


def size_tables(rows: Sequence[Row]) -> list[Table]:
    """Make the table of each size and operation: the cases one below the other."""
    places = dict.fromkeys((row["width"], row["operation"]) for row in rows)
    tables = [_size_table([row for row in rows if (row["width"], row["operation"]) == place]) for place in places]
    return [replace(tables[0], note=NOTE + _left_out(rows)), *tables[1:]]


def _size_table(rows: Sequence[Row]) -> Table:
    columns = ["", "seconds", "lowest to highest", "images/s", "TFLOP/s", "of matrix rate", "difference", "PSNR, dB"]
    first = rows[0]
    title = f"{first['operation'].capitalize()}, {first['width']}x{first['height']}"
    return Table(title, columns, [_line(row, len(columns)) for row in rows])


def _left_out(rows: Iterable[Row]) -> str:
    """Say which cases were left out, and why."""
    reasons = dict.fromkeys((row["case"], row["left_out"]) for row in rows if "left_out" in row)
    return "".join(f" Left out is {case}: {reason}." for case, reason in reasons)


def _line(row: Row, columns: int) -> list[str]:
    name = f"{row['network']}: {row['case']}"
    if "left_out" in row:
        return [name, "left out", *[""] * (columns - 2)]
    share = row["share_of_matrix_rate"]
    return [
        name,
        *_median_and_range(Spread.of(row["seconds"]), ".4g"),
        f"{row['images_per_s']:.4g}",
        f"{row['tflop_per_s']:.3f}",
        "" if share is None else f"{100 * share:.0f}%",
        f"{row['largest']:.2g}",
        f"{row['psnr_db']:.1f}" if row["largest"] else "equal",
    ]


def _median_and_range(spread: Spread, form: str) -> list[str]:
    return [f"{spread.median:{form}}", f"{spread.low:{form}} to {spread.high:{form}}"]


def comparison_table(found: Iterable[Comparison]) -> Table:
    """Make the table of how many times as fast one case is as another."""
    lines = [
        [
            f"{each.side}x{each.side}: {': '.join(each.faster)}",
            ": ".join(each.slower),
            *(_times(each.times[name]) for name in (*OPERATIONS, BOTH)),
        ]
        for each in found
    ]
    note = "Median over the rounds of the ratio within a round, its lowest and highest; both: encode, then decode."
    return Table("How many times as fast", ["", "as", *OPERATIONS, BOTH], lines, note)


def _times(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def plots(rows: Sequence[Row]) -> Plots:
    """Plot megapixels per second over the side of the images, a line for each case."""
    names = list(dict.fromkeys((row["network"], row["case"]) for row in rows if "seconds" in row))
    sides = sorted({row["width"] for row in rows})
    drawn = []
    for operation in OPERATIONS:
        lines = []
        for colour, (network, case) in enumerate(names):
            points = [
                (row["width"], row["images_per_s"] * row["width"] * row["height"] / MEGAPIXEL)
                for row in rows
                if (row["network"], row["case"], row["operation"]) == (network, case, operation) and "seconds" in row
            ]
            lines.append(Line(f"{network}: {case}", *_axes(points), colour))
        drawn.append(line_plot(lines, "side, pixels", f"{operation}: megapixels/s", ticks=sides, y_limits=(0, None)))
    return Plots("Speed over size", drawn)


def _axes(points: Sequence[tuple[float, float]]) -> tuple[Sequence[float], Sequence[float]]:
    return [x for x, _ in points], [y for _, y in points]


def memory_table(rows: Iterable[Row]) -> Table:
    """Make the table of peak memory of the cases."""
    columns: dict[str, Callable[[Row], str]] = {
        "": lambda row: f"{row['network']}: {row['case']}, {row['operation']} {row['width']}x{row['height']}",
        "idle, MiB": lambda row: f"{row['idle_bytes'] / MIB:.0f}",
        "peak above idle, MiB": lambda row: f"{row['above_idle_bytes'] / MIB:.0f}",
    }
    note = "One image, in a process of its own; on a GPU the memory of the GPU. Idle: the network loaded and warm."
    return table("Peak memory", rows, columns, note)


def tiling_table(rows: Sequence[Row]) -> Table:
    """Make the table of memory and time in bounded memory, beside the untiled case."""

    def known(name: str, form: str) -> Callable[[Row], str]:
        # The untiled case may be too large for the machine: there is nothing to compare with then.
        return lambda row: f"{row[name]:{form}}" if name in row else ""

    columns: dict[str, Callable[[Row], str]] = {
        "": lambda row: f"{row['operation']} {row['width']}x{row['height']}: {row['case']}",
        "peak above idle, MiB": lambda row: f"{row['above_idle_bytes'] / MIB:.0f}",
        "share of untiled peak": known("share_of_memory", ".2f"),
        "s/megapixel": known("seconds_per_megapixel", ".2f"),
        "share of untiled time": known("share_of_time", ".2f"),
        "largest difference": known("largest", ".2g"),
        "PSNR, dB": known("psnr_db", ".1f"),
    }
    note = (
        "One call of each, in processes of their own, one after the other. Idle: the network loaded and warm. The "
        "difference is to the untiled output."
    )
    return table("In bounded memory", rows, columns, note)
