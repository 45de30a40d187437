# SPDX-License-Identifier: Apache-2.0
"""Rows -> the tables and plots of the report."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.report.page import Plots, Table, table
from benchmarks.report.plots import Line, line_plot
from benchmarks.report.rows import Row

MIB, KILO, MS = 2**20, 1000, 1000
PERCENTILES = {"p50, ms": "p50", "p95, ms": "p95", "p99, ms": "p99"}
CLOSED_NOTE = (
    "A fixed number of calls in flight, each followed by the next; the warming up does not count. In process: the same "
    "model in the process that measures, from array to array, before and after each loop; the ratio is to the mean of "
    "both. Busy: the server's own times in the model over the wall time."
)
COST_NOTE = (
    "Overhead: median, over the calls of the lowest concurrency, of the wall time less the server's times in queue, "
    "model and coding: the transport and the messages. Sent and received: protobuf messages. Peak: the largest "
    "resident memory of the server until then, in the order of the table."
)
OPEN_NOTE = (
    "Poisson arrivals that wait for no answer. Latency counts from the moment at which a call was due, so a call "
    "that waits to be sent is as late as its user sees it. The capacity is the highest rate of the form's closed loops."
)
STREAM_NOTE = "One client, one stream: JPEG files of a folder to latents, latents to PIL images."
FLAT_NOTE = (
    "Encode and decode, files and raw tensors of several sizes, and requests that must be refused, in a seeded order; "
    "the resident memory of the server after each request behind the first hundred."
)

Columns = dict[str, Callable[[Row], str]]
RATES: Columns = {
    "images/s": lambda row: f"{row['images_per_s']:.4g}",
    "in process": lambda row: f"{row['in_process_images_per_s']:.4g}",
    "ratio": lambda row: f"{row['ratio']:.3f}",
    "busy": lambda row: f"{100 * row['busy_share']:.0f}%",
}


def of_kind(rows: Sequence[Row], kind: str) -> list[Row]:
    """Return the rows of closed loops, of open loops or of streams."""
    return [row for row in rows if row["kind"] == kind]


def closed_table(rows: Sequence[Row]) -> Table:
    """Make the table of the closed loops."""
    columns: Columns = {"": _name, "in flight": lambda row: f"{row['concurrency']}", **RATES, **_latencies()}
    return table("Closed loops", of_kind(rows, "closed"), columns, CLOSED_NOTE)


def cost_table(rows: Sequence[Row]) -> Table:
    """Make the table of the costs of a call beside the model; a row for each size and form."""
    places: dict[tuple[int, str], list[Row]] = {}
    for row in of_kind(rows, "closed"):
        places.setdefault((row["width"], row["form"]), []).append(row)
    lowest = [
        {**min(each, key=lambda row: int(row["concurrency"])), "peak_bytes": each[-1]["peak_bytes"], "errors": {}}
        for each in places.values()
    ]
    columns: Columns = {
        "": _name,
        "overhead, ms": lambda row: f"{MS * row['overhead_s']:.1f}",
        "sent, kB": lambda row: f"{row['request_bytes'] / KILO:.1f}",
        "received, kB": lambda row: f"{row['response_bytes'] / KILO:.1f}",
        "peak, MiB": lambda row: "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / MIB:.0f}",
    }
    return table("Beside the model", lowest, columns, COST_NOTE)


def open_table(rows: Sequence[Row]) -> Table:
    """Make the table of the open loops."""
    columns: Columns = {
        "": _name,
        "of the capacity": lambda row: f"{100 * row['share']:.0f}%",
        "arrivals/s": lambda row: f"{row['arrivals_per_s']:.4g}",
        "answers": lambda row: f"{row['latency_s']['count']}" if row.get("latency_s") else row.get("left_out", "0"),
        **_latencies(),
    }
    return table("Open loops", of_kind(rows, "open"), columns, OPEN_NOTE)


def stream_table(rows: Sequence[Row]) -> Table:
    """Make the table of the streams."""
    columns: Columns = {"": _name, "images": lambda row: f"{row['answers']}", **RATES}
    return table("Streams", of_kind(rows, "stream"), columns, STREAM_NOTE)


def soak_table(summary: Mapping[str, Any]) -> Table:
    """Make the table of the server's memory over many requests."""
    lines = [
        ["first hundred, mean, MiB", f"{summary['first_bytes'] / MIB:.1f}"],
        ["last hundred, mean, MiB", f"{summary['last_bytes'] / MIB:.1f}"],
        ["ratio", f"{summary['ratio']:.4f}"],
        ["flat", "yes" if summary["flat"] else "no"],
        *([name, _counts(summary[name]) or "0"] for name in ("answers", "refusals", "surprises")),
    ]
    return Table(f"Memory over {summary['requests']} mixed requests", ["", "value"], lines, FLAT_NOTE)


def soak_plots(resident_bytes: Sequence[int], first: int) -> Plots:
    """Plot the server's memory over the requests; the first sample follows request number `first`."""
    x = list(range(first, first + len(resident_bytes)))
    line = Line("resident memory", x, [each / MIB for each in resident_bytes], 0, marked=False)
    return Plots(
        "Over the run", [line_plot([line], "requests", "resident memory of the server, MiB", y_limits=(0, None))]
    )


def plots(rows: Sequence[Row]) -> Plots:
    """Plot, for each size, the ratio to the model in process over the concurrency; a line for each form."""
    closed = of_kind(rows, "closed")
    forms = list(dict.fromkeys(row["form"] for row in closed))
    ticks = sorted({row["concurrency"] for row in closed})
    drawn = []
    for width in sorted({row["width"] for row in closed}):
        lines = []
        for colour, form in enumerate(forms):
            found = [row for row in closed if (row["width"], row["form"]) == (width, form)]
            lines.append(Line(form, [row["concurrency"] for row in found], [row["ratio"] for row in found], colour))
        label = f"{width}x{width}: share of the rate in process"
        drawn.append(line_plot(lines, "calls in flight", label, ticks=ticks, y_limits=(0, None)))
    return Plots("Served, beside the model in process", drawn)


def _name(row: Row) -> str:
    errors = f" ({_counts(row['errors'])})" if row.get("errors") else ""
    return f"{row['width']}x{row['height']} {row['form']}{errors}"


def _latencies() -> Columns:
    def shown(percentile: str) -> Callable[[Row], str]:
        return lambda row: f"{MS * row['latency_s'][percentile]:.0f}" if row.get("latency_s") else ""

    return {heading: shown(percentile) for heading, percentile in PERCENTILES.items()}


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counted.items())
