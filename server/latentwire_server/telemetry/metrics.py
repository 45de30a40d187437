# SPDX-License-Identifier: Apache-2.0
"""Events in the server -> Prometheus metrics and log lines."""

import logging
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pythonjsonlogger.json import JsonFormatter

from latentwire_server.telemetry.statistics import Stages, Statistics

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that the current task works on; in every log line."""

# 0.5 ms to 65 s: from a 64-pixel image on a GPU to a large one behind a full queue on a CPU.
SECONDS = tuple(0.0005 * 2**power for power in range(18))
IMAGES = tuple(2**power for power in range(8))


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.statistics = Statistics()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        timer = partial(histogram, buckets=SECONDS)
        self._requests = counter(
            "latentwire_requests", "RPCs and stream items that ended, by method and status code", ["method", "code"]
        )
        self._queue = gauge("latentwire_queue_images", "Images that are waiting or being worked on")
        self._batch = histogram("latentwire_batch_images", "Images in a batch", ["operation"], buckets=IMAGES)
        self._seconds = {
            stage: timer(f"latentwire_{stage}_seconds", text, ["operation"])
            for stage, text in (
                ("queue", "Time of a request's images in the queue"),
                ("compute", "Time of a batch on the device"),
                ("coding", "Time of a request's image files and casts"),
            )
        }
        by_model: tuple[tuple[Any, str, str], ...] = (
            (counter, "float32_retries", "Images whose output was not finite and was computed again in float32"),
            (gauge, "model_loaded", "1 while the model's weights are in memory, else 0"),
            (gauge, "model_weights_bytes", "Memory of the model's weights, 0 while they are not loaded"),
            (timer, "model_load_seconds", "Time to load the model's weights, the waiting for room excluded"),
            (counter, "model_load_failures", "Loads of the model on demand that failed"),
            (counter, "model_evictions", "Times that the model's weights made room for another's"),
        )
        self._by_model = {name: make(f"latentwire_{name}", text, ["model"]) for make, name, text in by_model}

    def watch_queue(self, held: Callable[[], int]) -> None:
        """Read the queue's depth with `held` whenever the metrics are collected."""
        self._queue.set_function(held)

    def ended(self, method: str, code: str) -> None:
        """Count an ended RPC, or an ended item of a stream, by its method and the name of its status code."""
        self._requests.labels(method, code).inc()

    def job(self, model: str, operation: str) -> AbstractAsyncContextManager[None]:
        """Count a request by how it ends, and how long it took."""
        return self.statistics.of(model, operation).job()

    def computed(self, model: str, operation: str, images: int, seconds: float) -> None:
        """Observe a batch."""
        self._batch.labels(operation).observe(images)
        self._seconds["compute"].labels(operation).observe(seconds)
        self.statistics.of(model, operation).batches[images].add(round(seconds * 1e9))

    def answered(self, model: str, operation: str, images: int, stages: Stages) -> None:
        """Observe the stages of an answered request, and the number of its images."""
        self._seconds["queue"].labels(operation).observe(stages.queue_ns / 1e9)
        self._seconds["coding"].labels(operation).observe((stages.prepare_ns + stages.finish_ns) / 1e9)
        self.statistics.of(model, operation).answered(images, stages)

    def retried(self, model: str, images: int) -> None:
        """Count images that were computed again in float32."""
        self._of("float32_retries", model).inc(images)

    def serves(self, model: str) -> None:
        """Show a model before any event of its own."""
        for name in self._by_model.keys() - {"float32_retries"}:
            self._of(name, model)

    def loaded(self, model: str, weights_bytes: int, seconds: float) -> None:
        """Observe that a model's weights came into memory."""
        self._of("model_loaded", model).set(1)
        self._of("model_weights_bytes", model).set(weights_bytes)
        self._of("model_load_seconds", model).observe(seconds)

    def load_failed(self, model: str) -> None:
        """Count a load that failed."""
        self._of("model_load_failures", model).inc()

    def evicted(self, model: str) -> None:
        """Observe that a model's weights left memory."""
        self._of("model_loaded", model).set(0)
        self._of("model_weights_bytes", model).set(0)
        self._of("model_evictions", model).inc()

    def _of(self, name: str, model: str) -> Any:
        return self._by_model[name].labels(model)


def configure_logging(log_format: str, worker: int | None = None) -> None:
    """Send the log to standard error, as `text` for people or as `json`, one object a line.

    Args:
        log_format: `text` or `json`.
        worker: the number that every line carries; None: the lines of the only process, or of the workers' parent,
            carry no number.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_add_request_id)
    if log_format == "json":
        fields = ["asctime", "levelname", "name", "message", "request_id"]
        handler.setFormatter(JsonFormatter(fields, static_fields={} if worker is None else {"worker": worker}))
    else:
        who = "" if worker is None else f"worker {worker}: "
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {who}%(message)s [%(request_id)s]"))
    logger = logging.getLogger("latentwire")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _add_request_id(record: logging.LogRecord) -> bool:
    if not hasattr(record, "request_id"):
        record.request_id = request_id.get() or "-"
    return True
