# SPDX-License-Identifier: Apache-2.0
"""The models of a server, their device, threads and processes, wired together.

`work` carries out requests; the event loop only passes them on. A long batch pauses between the strips that it is
computed in, or the iterations of a refinement: smaller batches run meanwhile, and it ends there if nobody waits for it
any more.
"""

import asyncio
import gc
import logging
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from latentwire_codec.lat import payload
from latentwire_codec.load import MEASURED, load_autoencoder
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.placement import Placement
from latentwire_core.errors import UnknownModel
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_server.engine.batching import Batcher
from latentwire_server.engine.coding.coders import Coders
from latentwire_server.engine.coding.threads import Threads
from latentwire_server.engine.device import Device, use_cores
from latentwire_server.engine.lane import BatchLimits
from latentwire_server.engine.models import ModelStore
from latentwire_server.engine.shares import Shares
from latentwire_server.engine.task import Computed, Task, compute, warm_up
from latentwire_server.engine.work import JobRunner
from latentwire_server.telemetry.metrics import Metrics

log = logging.getLogger("latentwire")

T = TypeVar("T")

GPU_DELAY_MS = 5.0


class Abandoned(Exception):
    """Nobody waits for the batch that is being computed."""


class Engine:
    """The models of one server and the device they share. Made, started and closed in one event loop.

    Attributes:
        models: the models by name.
        places: the places in the queue.
        work: carries out requests.

    Args:
        config: models, device, limits.
        metrics: counts what happens.
    """

    def __init__(self, config: ServerConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        placement = Placement.choose(config.device, config.dtype)
        if placement.is_emulated:
            log.warning(
                "this CPU has no instructions for %s: it will be about ten times slower than float32", config.dtype
            )
        on_cpu = placement.device.type == "cpu"
        delay_ms = config.max_delay_ms
        if delay_ms is None or on_cpu:
            delay_ms = 0.0 if on_cpu else GPU_DELAY_MS
        self._batcher: Batcher[Tensor, Computed] = Batcher(
            self._run_batch,
            # On a CPU a batch gains nothing, and singly an image's result is bitwise its own.
            BatchLimits(
                images=1 if on_cpu else config.max_batch, pixels=config.max_batch_pixels, delay_s=delay_ms / 1000
            ),
        )
        self._placement = placement
        self.places = Shares(config.max_queue)
        self._device = Device(torch.get_num_threads())
        # Half as many threads, and processes, as compute; a worker counts its own share of the cores.
        threads = max(2, torch.get_num_threads() // 2)
        self._threads = Threads(threads, partial(use_cores, 1))
        self._coders = Coders(threads, config.image_limits.max_pixels)
        # A thread beside the device's: a load keeps no batch of another model waiting. It has all cores, too, because
        # the way to run a model is chosen in it.
        self._load_thread = ThreadPoolExecutor(1, thread_name_prefix="loading")
        self._loop_task: asyncio.Task[None] | None = None
        self.models = ModelStore(self._load, config.model_memory_bytes, metrics)
        self.work = JobRunner(config, metrics, self.models, self._batcher, self.places, self._threads, self._coders)
        metrics.watch_queue(lambda: self.places.held)

    async def start(self) -> None:
        """Open every model and run it once.

        Raises:
            ModelError: a model cannot be loaded.
            ServerError: a model is larger than the memory for all, or the process for image files does not start.
        """
        self._device.start()
        self._loop_task = asyncio.create_task(self._batcher.serve())
        # The models take longer: the first image file waits for no process, the first payload for no compilation.
        reading = asyncio.create_task(self._coders.start())
        compiling = asyncio.create_task(asyncio.to_thread(payload.warm_up))
        try:
            await self.models.open(self._config.models)
            await reading
            await compiling
        finally:
            reading.cancel()
            compiling.cancel()

    async def close(self, wait: bool = True) -> None:
        """Stop the batcher, the threads and the processes; jobs still queued never end, so drain first.

        Args:
            wait: whether to wait until the batch on the device has ended at its next pause, and until a model that is
                being loaded is there.
        """
        if self._loop_task is not None:
            self._loop_task.cancel()
            with suppress(asyncio.CancelledError):
                await self._loop_task
        await self.models.close()
        await self._device.close(wait)
        await self._coders.close()
        await self._threads.close(wait)
        await asyncio.to_thread(self._load_thread.shutdown, wait=wait, cancel_futures=True)

    def model_name(self, name: str) -> str:
        """Map a request's model to a served name; the empty one to the default.

        Raises:
            UnknownModel: no model of that name is served.
        """
        if not name:
            return next(iter(self.models))
        if name not in self.models:
            raise UnknownModel(f"no model {name!r} is served here; there is {', '.join(self.models)}")
        return name

    async def _run_batch(self, key: Hashable, payloads: list[Tensor]) -> list[Computed | Exception]:
        assert isinstance(key, Task)  # the batcher hands back the key of `_compute`
        with self.models.at_work(key.model):
            results, compute_ns = await self._device.run(partial(compute, key, payloads, self._pause))
        self._metrics.computed(key.name, key.operation, len(payloads), compute_ns / 1e9)
        self.places.observe(compute_ns / 1e9 / len(payloads) / key.passes)
        retries = sum(isinstance(result, Computed) and result.float32_retry for result in results)
        if retries:
            self._metrics.retried(key.name, retries)
        return [
            replace(result, compute_ns=compute_ns) if isinstance(result, Computed) else result for result in results
        ]

    def _pause(self) -> None:
        """Let a smaller batch run that waits; called between two strips, in the device's thread.

        Raises:
            Abandoned: nobody waits for the batch at work any more.
        """
        if self._batcher.is_abandoned:
            raise Abandoned
        if self._batcher.has_smaller_batch:
            self._device.yield_to(self._batcher.run_smaller_batch)

    async def _load(self, model: ModelSource) -> Autoencoder:
        """Read a model in the thread for loads, and run both its halves once in the device's thread."""

        def load() -> Autoencoder:
            # The traceback of a failed request may hold evicted weights until here; so does the device's cache.
            gc.collect()
            if self._placement.device.type == "cuda":
                torch.cuda.empty_cache()
            return load_autoencoder(
                model.source,
                device=str(self._placement.device),
                dtype=MEASURED if self._config.dtype == "auto" else self._config.dtype,
                scale=model.scale,
                shift=model.shift,
                latent_space=model.latent_space,
                allow_pickle=self._config.allow_pickle,
                rewrites=self._config.rewrites,
                activation_memory_mib=self._config.activation_memory_mib,
            )

        autoencoder = await asyncio.get_running_loop().run_in_executor(self._load_thread, load)
        await self._device.run(partial(warm_up, autoencoder))
        return autoencoder
