# SPDX-License-Identifier: Apache-2.0
"""What the models did since the server started: jobs and batches -> counts and durations for each model and operation.

Whatever protocol a job came by, the engine tells `telemetry.Metrics` of it, which counts it here and for Prometheus;
what cannot be made into a job, the protocol's own service tells it.
"""

import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Total:
    """How often something happened, and how long it took in all, in nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count it once more."""
        self.count += 1
        self.ns += ns


@dataclass(frozen=True)
class Stages:
    """Where the time of one answered job went, in nanoseconds: in the queue, before, in and after the model."""

    queue_ns: int
    prepare_ns: int
    compute_ns: int
    finish_ns: int


@dataclass
class Work:
    """What one model did in one operation.

    Attributes:
        success: jobs that were answered, each from when the engine got it to its end.
        fail: those that were not: refused before or by the engine, failed, or given up by the client.
        queue: of answered jobs, waiting; for the model's weights too.
        prepare: of answered jobs, work before the model.
        compute: of answered jobs, the batches that their images were in.
        finish: of answered jobs, work after the model.
        images: of answered jobs.
        batches: number of images -> batches of that size that ran.
        last_ms: when the last job came, milliseconds since 1970; 0: never.
    """

    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    prepare: Total = field(default_factory=Total)
    compute: Total = field(default_factory=Total)
    finish: Total = field(default_factory=Total)
    images: int = 0
    batches: dict[int, Total] = field(default_factory=lambda: defaultdict(Total))
    last_ms: int = 0

    @asynccontextmanager
    async def job(self) -> AsyncIterator[None]:
        """Count a job, by how the context ends."""
        self.last_ms = time.time_ns() // 1_000_000
        started_ns = time.monotonic_ns()
        try:
            yield
        except BaseException:  # cancelled ones too
            self.fail.add(time.monotonic_ns() - started_ns)
            raise
        self.success.add(time.monotonic_ns() - started_ns)

    def answered(self, images: int, stages: Stages) -> None:
        """Count what an answered job took."""
        self.images += images
        self.queue.add(stages.queue_ns)
        self.prepare.add(stages.prepare_ns)
        self.compute.add(stages.compute_ns)
        self.finish.add(stages.finish_ns)


class Statistics:
    """The work of each model and operation; for one event loop."""

    def __init__(self) -> None:
        self._work: defaultdict[tuple[str, str], Work] = defaultdict(Work)

    def of(self, model: str, operation: str) -> Work:
        """Return what a model, by its served name, did in an operation, to be read or counted up."""
        return self._work[model, operation]
