# SPDX-License-Identifier: Apache-2.0
"""Requests and batches since the server started -> counts and durations for each model and operation.

The corridor and the engine report to `telemetry.Metrics`, which counts here and for Prometheus; so requests of every
protocol are counted alike.
"""

import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Total:
    """A number of events, and their duration together, in nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count one event more."""
        self.count += 1
        self.ns += ns


@dataclass(frozen=True)
class Stages:
    """The time of one answered request, in nanoseconds: in the queue, before, in and after the model."""

    queue_ns: int
    prepare_ns: int
    compute_ns: int
    finish_ns: int


@dataclass
class Work:
    """The work of one model in one operation.

    Attributes:
        success: requests that were answered, each from its arrival in the corridor to its end.
        fail: requests that were refused, failed, or were given up by the client.
        queue: the waiting of answered requests, for the model's weights too.
        prepare: the work before the model for answered requests.
        compute: the batches that the images of answered requests were in.
        finish: the work after the model for answered requests.
        images: the number of images of answered requests.
        batches: number of images -> batches of that size that ran.
        last_ms: the arrival of the last request, milliseconds since 1970; 0: there was no request.
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
        """Count a request, by how the context ends."""
        self.last_ms = time.time_ns() // 1_000_000
        started_ns = time.monotonic_ns()
        try:
            yield
        except BaseException:  # a cancelled request failed, too
            self.fail.add(time.monotonic_ns() - started_ns)
            raise
        self.success.add(time.monotonic_ns() - started_ns)

    def answered(self, images: int, stages: Stages) -> None:
        """Count the images and the time of an answered request."""
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
        """Return the work of a model, by its served name, in an operation; it may be read and counted up."""
        return self._work[model, operation]
