# SPDX-License-Identifier: Apache-2.0
"""Rows -> the tables and plots of the report."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.report.page import Block, Plots, Table, table
from benchmarks.report.plots import Line, line_plot
from benchmarks.report.rows import Row

MIB, KILO, MS = 2**20, 1000, 1000
FLAT_NOTE = (
    "Encode and decode, files and raw tensors of several sizes, and requests that must be refused, in a seeded order; "
    "the resident memory of the server after each request behind the first hundred."
)
Columns = dict[str, Callable[[Row], str]]


def _name(row: Row) -> str:
    errors = f" ({_counts(row['errors'])})" if row.get("errors") else ""
    return f"{row['width']}x{row['height']} {row['form']}{errors}"


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counted.items())


def _number(key: str, form: str, factor: float = 1) -> Callable[[Row], str]:
    return lambda row: f"{factor * row[key]:{form}}"


def _latency(percentile: str) -> Callable[[Row], str]:
    return lambda row: f"{MS * row['latency_s'][percentile]:.0f}" if row.get("latency_s") else ""


LATENCIES: Columns = {f"{percentile}, ms": _latency(percentile) for percentile in ("p50", "p95", "p99")}
RATES: Columns = {
    "images/s": _number("images_per_s", ".4g"),
    "in process": _number("in_process_images_per_s", ".4g"),
    "ratio": _number("ratio", ".3f"),
    "busy": _number("busy_share", ".0%"),
}
# By the kind of rows: the title of the table, its columns and its note.
TABLES: dict[str, tuple[str, Columns, str]] = {
    "closed": (
        "Closed loops",
        {"": _name, "in flight": _number("concurrency", "d"), **RATES, **LATENCIES},
        "A fixed number of calls in flight, each followed by the next; the warming up does not count. In process: the "
        "same model in the process that measures, from array to array, before and after each loop; the ratio is to "
        "the mean of both. Busy: the server's own times in the model over the wall time.",
    ),
    "cost": (
        "Beside the model",
        {
            "": _name,
            "overhead, ms": _number("overhead_s", ".1f", MS),
            "sent, kB": _number("request_bytes", ".1f", 1 / KILO),
            "received, kB": _number("response_bytes", ".1f", 1 / KILO),
            "peak, MiB": lambda row: "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / MIB:.0f}",
        },
        "Overhead: median, over the calls of the lowest concurrency, of the wall time less the server's times in "
        "queue, model and coding: the transport and the messages. Sent and received: protobuf messages. Peak: the "
        "largest resident memory of the server until then, in the order of the table.",
    ),
    "open": (
        "Open loops",
        {
            "": _name,
            "of the capacity": _number("share", ".0%"),
            "arrivals/s": _number("arrivals_per_s", ".4g"),
            "answers": lambda row: f"{row['latency_s']['count']}" if row.get("latency_s") else row.get("left_out", "0"),
            **LATENCIES,
        },
        "Poisson arrivals that wait for no answer. Latency counts from the moment at which a call was due, so a call "
        "that waits to be sent is as late as its user sees it. The capacity is the highest rate of the form's closed "
        "loops.",
    ),
    "stream": (
        "Streams",
        {"": _name, "images": _number("answers", "d"), **RATES},
        "One client, one stream: JPEG files of a folder to latents, latents to PIL images.",
    ),
}


def blocks(rows: Sequence[Row]) -> list[Block]:
    """Make the tables and plots of the report."""
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in TABLES}
    kinds["cost"] = _costs(kinds["closed"])
    return [*(table(title, kinds[kind], columns, note) for kind, (title, columns, note) in TABLES.items()), plots(rows)]


def _costs(closed: Sequence[Row]) -> list[Row]:
    """Return the row of the lowest concurrency for each size and form, with the peak of the highest."""
    places: dict[tuple[int, str], list[Row]] = {}
    for row in closed:
        places.setdefault((row["width"], row["form"]), []).append(row)
    return [
        {**min(each, key=lambda row: int(row["concurrency"])), "peak_bytes": each[-1]["peak_bytes"], "errors": {}}
        for each in places.values()
    ]


def plots(rows: Sequence[Row]) -> Plots:
    """Plot, for each size, the ratio to the model in process over the concurrency; a line for each form."""
    closed = [row for row in rows if row["kind"] == "closed"]
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


def soak_blocks(summary: Mapping[str, Any], resident_bytes: Sequence[int], first: int) -> list[Block]:
    """Make the table and the plot of the server's memory; the first sample follows request number `first`."""
    lines = [
        ["first hundred, mean, MiB", f"{summary['first_bytes'] / MIB:.1f}"],
        ["last hundred, mean, MiB", f"{summary['last_bytes'] / MIB:.1f}"],
        ["ratio", f"{summary['ratio']:.4f}"],
        ["flat", "yes" if summary["flat"] else "no"],
        *([name, _counts(summary[name]) or "0"] for name in ("answers", "refusals", "surprises")),
    ]
    x = range(first, first + len(resident_bytes))
    line = Line("resident memory", x, [each / MIB for each in resident_bytes], 0, marked=False)
    plot = line_plot([line], "requests", "resident memory of the server, MiB", y_limits=(0, None))
    title = f"Memory over {summary['requests']} mixed requests"
    return [Table(title, ["", "value"], lines, FLAT_NOTE), Plots("Over the run", [plot])]
