# SPDX-License-Identifier: Apache-2.0
"""Rows of one size -> how many times as fast one case is as another, round by round."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.networks import BUNDLED, SD_SIZE, TINY
from benchmarks.report.rows import Row
from benchmarks.report.timing import Spread, speed_up
from benchmarks.throughput.cases import LATENTWIRE, OPERATIONS

BOTH = "both"
"""Encode and decode, one after the other."""
Name = tuple[str, str]
"""Names of the network and of the case."""


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
