# SPDX-License-Identifier: Apache-2.0
"""Rows -> the tables and plots of the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report.page import Plots, Table
from benchmarks.report.plots import Line, line_plot
from benchmarks.report.rows import Row

MIB, KILO, MS = 2**20, 1000, 1000
CLOSED_NOTE = (
    "So many calls in flight, each followed by the next; the warming up does not count. In process: the same model in "
    "the process that measures, from array to array, before and after each; the ratio is to their mean. Busy: the "
    "server's own times in the model over the wall time."
)
COST_NOTE = (
    "Overhead: median, over the calls of the lowest concurrency, of the wall time less the server's own queue, model "
    "and coding: the transport and the messages. Sent and received: protobuf messages. Peak: the largest resident "
    "memory of the server until then, in the order of the table."
)
OPEN_NOTE = (
    "Poisson arrivals that wait for no answer; the latency counts from when a call was due, so that one which had to "
    "wait to be sent is no quicker for it. The capacity is the highest rate of the closed loops of the form."
)
STREAM_NOTE = "One client, one stream: JPEG files of a folder to latents, latents to PIL images."
FLAT_NOTE = (
    "Encode and decode, files and raw tensors, of several sizes, and requests that must be refused, in a seeded order; "
    "the resident memory of the server after each request behind the first hundred."
)


def closed_table(rows: Sequence[Row]) -> Table:
    """Make the table of the closed loops."""
    columns = ["", "in flight", "images/s", "in process", "ratio", "busy", "p50, ms", "p95", "p99"]
    lines = [
        [
            f"{row['width']}x{row['height']} {row['form']}" + _errors(row),
            f"{row['concurrency']}",
            f"{row['images_per_s']:.4g}",
            f"{row['in_process_images_per_s']:.4g}",
            f"{row['ratio']:.3f}",
            f"{100 * row['busy_share']:.0f}%",
            *_latencies(row["latency_s"]),
        ]
        for row in rows
        if row["kind"] == "closed"
    ]
    return Table("Closed loops", columns, lines, CLOSED_NOTE)


def cost_table(rows: Sequence[Row]) -> Table:
    """Make the table of what a call costs beside the model."""
    columns = ["", "overhead, ms", "sent, kB", "received, kB", "peak, MiB"]
    closed = [row for row in rows if row["kind"] == "closed"]
    lines = []
    for place in dict.fromkeys((row["width"], row["form"]) for row in closed):
        these = [row for row in closed if (row["width"], row["form"]) == place]
        first = min(these, key=lambda row: row["concurrency"])
        lines.append(
            [
                f"{first['width']}x{first['height']} {first['form']}",
                f"{MS * first['overhead_s']:.1f}",
                *(f"{first[name] / KILO:.1f}" for name in ("request_bytes", "response_bytes")),
                _mebibytes(these[-1]["peak_bytes"]),
            ]
        )
    return Table("Beside the model", columns, lines, COST_NOTE)


def open_table(rows: Sequence[Row]) -> Table:
    """Make the table of the open loops."""
    columns = ["", "of the capacity", "arrivals/s", "answers", "p50, ms", "p95", "p99"]
    lines = []
    for row in rows:
        if row["kind"] != "open":
            continue
        found = row.get("latency_s")
        counted = [f"{found['count']}", *_latencies(found)] if found else [row.get("left_out", "none"), "", "", ""]
        name = f"{row['width']}x{row['height']} {row['form']}" + _errors(row)
        lines.append([name, f"{100 * row['share']:.0f}%", f"{row['arrivals_per_s']:.4g}", *counted])
    return Table("Open loops", columns, lines, OPEN_NOTE)


def stream_table(rows: Sequence[Row]) -> Table:
    """Make the table of the streams."""
    columns = ["", "images", "images/s", "in process", "ratio", "busy"]
    lines = [
        [
            f"{row['width']}x{row['height']} {row['operation']}" + _errors(row),
            f"{row['answers']}",
            f"{row['images_per_s']:.4g}",
            f"{row['in_process_images_per_s']:.4g}",
            f"{row['ratio']:.3f}",
            f"{100 * row['busy_share']:.0f}%",
        ]
        for row in rows
        if row["kind"] == "stream"
    ]
    return Table("Streams", columns, lines, STREAM_NOTE)


def soak_table(summary: Mapping[str, Any]) -> Table:
    """Make the table of a long run's memory."""
    lines = [
        ["first hundred, mean, MiB", f"{summary['first_bytes'] / MIB:.1f}"],
        ["last hundred, mean, MiB", f"{summary['last_bytes'] / MIB:.1f}"],
        ["ratio", f"{summary['ratio']:.4f}"],
        ["flat", "yes" if summary["flat"] else "no"],
    ]
    lines += [[name, _counts(summary[name])] for name in ("answers", "refusals", "surprises")]
    return Table(f"Memory over {summary['requests']} mixed requests", ["", ""], lines, FLAT_NOTE)


def soak_plots(resident_bytes: Sequence[int], first: int) -> Plots:
    """Plot the server's memory over the requests."""
    x = list(range(first, first + len(resident_bytes)))
    line = Line("resident memory", x, [each / MIB for each in resident_bytes], 0, marked=False)
    svg = line_plot([line], "requests", "resident memory of the server, MiB", y_limits=(0, None))
    return Plots("Over the run", [svg], [("resident memory", 0, False)])


def plots(rows: Sequence[Row]) -> Plots:
    """Plot, for each size, the ratio to the model in process over the concurrency; a line for each form."""
    closed = [row for row in rows if row["kind"] == "closed"]
    forms = list(dict.fromkeys(row["form"] for row in closed))
    ticks = sorted({row["concurrency"] for row in closed})
    svgs = []
    for width in sorted({row["width"] for row in closed}):
        lines = []
        for colour, form in enumerate(forms):
            points = [
                (row["concurrency"], row["ratio"]) for row in closed if (row["width"], row["form"]) == (width, form)
            ]
            lines.append(Line(form, [x for x, _ in points], [y for _, y in points], colour))
        svgs.append(
            line_plot(
                lines, "calls in flight", f"{width}x{width}: of the rate in process", ticks=ticks, y_limits=(0, None)
            )
        )
    return Plots("Served, beside the model in process", svgs, [(form, n, False) for n, form in enumerate(forms)])


def _latencies(found: Mapping[str, float]) -> list[str]:
    return [f"{MS * found[name]:.0f}" for name in ("p50", "p95", "p99")]


def _errors(row: Row) -> str:
    return f" ({_counts(row['errors'])})" if row.get("errors") else ""


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counted.items()) or "none"


def _mebibytes(number: int | None) -> str:
    return "" if number is None else f"{number / MIB:.0f}"
