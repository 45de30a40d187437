# SPDX-License-Identifier: Apache-2.0
"""Events in the server -> Prometheus metrics and log lines."""

import logging
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from pythonjsonlogger.json import JsonFormatter

from latentwire_server.telemetry.statistics import Stages, Statistics

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that the current task works on; in every log line."""

# 0.5 ms to 65 s: from a 64-pixel image on a GPU to a large one behind a full queue on a CPU.
SECONDS = tuple(0.0005 * 2**power for power in range(18))


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.statistics = Statistics()
        self._requests = Counter(
            "latentwire_requests",
            "RPCs and stream items that ended, by method and status code",
            ["method", "code"],
            registry=self.registry,
        )
        self._queue = Gauge(
            "latentwire_queue_images",
            "Images that are waiting or being worked on",
            registry=self.registry,
        )
        self._batch = Histogram(
            "latentwire_batch_images",
            "Images in a batch",
            ["operation"],
            buckets=tuple(2**power for power in range(8)),
            registry=self.registry,
        )
        self._seconds = {
            stage: Histogram(
                f"latentwire_{stage}_seconds",
                text,
                ["operation"],
                buckets=SECONDS,
                registry=self.registry,
            )
            for stage, text in (
                ("queue", "Time of a request's images in the queue"),
                ("compute", "Time of a batch on the device"),
                ("coding", "Time of a request's image files and casts"),
            )
        }
        self._retries = Counter(
            "latentwire_float32_retries",
            "Images whose output was not finite and was computed again in float32",
            ["model"],
            registry=self.registry,
        )
        self._model_loaded = Gauge(
            "latentwire_model_loaded",
            "1 while the model's weights are in memory, else 0",
            ["model"],
            registry=self.registry,
        )
        self._model_bytes = Gauge(
            "latentwire_model_weights_bytes",
            "Memory of the model's weights, 0 while they are not loaded",
            ["model"],
            registry=self.registry,
        )
        self._model_load = Histogram(
            "latentwire_model_load_seconds",
            "Time to load the model's weights, the waiting for room excluded",
            ["model"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._model_failures = Counter(
            "latentwire_model_load_failures",
            "Loads of the model on demand that failed",
            ["model"],
            registry=self.registry,
        )
        self._model_evictions = Counter(
            "latentwire_model_evictions",
            "Times that the model's weights made room for another's",
            ["model"],
            registry=self.registry,
        )

    def watch_queue(self, held: Callable[[], int]) -> None:
        """Read the queue's depth with `held` whenever the metrics are collected."""
        self._queue.set_function(held)

    def ended(self, method: str, code: str) -> None:
        """Count an RPC, or an item of a stream, that ended with a status code's name."""
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
        self._retries.labels(model).inc(images)

    def serves(self, model: str) -> None:
        """Show a model before any event of its own."""
        for metric in (self._model_loaded, self._model_bytes, self._model_load, self._model_failures):
            metric.labels(model)
        self._model_evictions.labels(model)

    def loaded(self, model: str, weights_bytes: int, seconds: float) -> None:
        """Observe that a model's weights came into memory."""
        self._model_loaded.labels(model).set(1)
        self._model_bytes.labels(model).set(weights_bytes)
        self._model_load.labels(model).observe(seconds)

    def load_failed(self, model: str) -> None:
        """Count a load that failed."""
        self._model_failures.labels(model).inc()

    def evicted(self, model: str) -> None:
        """Observe that a model's weights left memory."""
        self._model_loaded.labels(model).set(0)
        self._model_bytes.labels(model).set(0)
        self._model_evictions.labels(model).inc()

    def serve(self, host: str, port: int) -> WSGIServer:
        """Answer GET /metrics from a thread.

        Raises:
            OSError: the port is taken.
        """
        server, _ = start_http_server(port, addr=host, registry=self.registry)
        return server


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
