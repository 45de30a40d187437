# SPDX-License-Identifier: Apache-2.0
"""Models at work: jobs in, results out.

A job's image is read in a thread pool, waits in the batcher, runs in the device's one thread, and its answer is
written in the pool again; the event loop only passes things on.

    job ── admission ── model in memory ── prepare (pool) ── batcher ── device thread ── finish (pool) ── result
"""

import asyncio
import gc
import logging
import os
import time
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from latentwire_codec import pixels
from latentwire_codec.autoencoder import Autoencoder, load_autoencoder
from latentwire_codec.errors import NonFiniteError, UnknownModel
from latentwire_codec.runtime import Placement
from latentwire_codec.tiling.footprint import Half
from latentwire_server import coding
from latentwire_server.admission import Admission
from latentwire_server.batching import Batcher, BatchLimits, Outcome
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_server.jobs import (
    Caller,
    DecodeJob,
    DecodeResult,
    EncodeJob,
    EncodeResult,
    Execution,
    PayloadJob,
)
from latentwire_server.models import Held, ModelStore
from latentwire_server.statistics import Stages
from latentwire_server.telemetry import Metrics

log = logging.getLogger("latentwire")

T = TypeVar("T")

WARM_UP_SIDE = 64
GPU_DELAY_MS = 5.0


@dataclass(frozen=True)
class Task:
    """What one batch does: equal tasks may share a batch."""

    name: str
    """The model's, as it is served."""
    model: Autoencoder
    operation: Half
    shape: tuple[int, ...]
    dtype: torch.dtype
    """Of the input for encode, of the output for decode: uint8 or a float."""


@dataclass(frozen=True)
class Computed:
    """What the model gave for one image: moments for encode, one image for decode; each with B = 1."""

    tensors: tuple[Tensor, ...]
    float32_retry: bool


@dataclass(frozen=True)
class Run:
    """What became of the images of one job."""

    enqueued_ns: int
    outcomes: list[Outcome[Computed]]

    @property
    def results(self) -> list[Computed]:
        """One for each image, in order."""
        return [outcome.result for outcome in self.outcomes]

    @property
    def compute_ns(self) -> int:
        """The duration of the batches that the images were in, each counted once."""
        return sum({o.batch: o.ended_ns - o.started_ns for o in self.outcomes}.values())

    @property
    def queue_ns(self) -> int:
        """The rest of the time from the queueing of the images to the last result."""
        return max(o.ended_ns for o in self.outcomes) - self.enqueued_ns - self.compute_ns


class Engine:
    """The models of one server and the device they share. Made, started and closed in one event loop.

    Args:
        config: models, device, limits.
        metrics: told what happens.
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
                images=1 if on_cpu else config.max_batch,
                pixels=config.max_batch_pixels,
                delay_s=delay_ms / 1000,
            ),
        )
        self._placement = placement
        self._admission = Admission(config.max_queue)
        self._device_thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._pool = ThreadPoolExecutor(max(2, (os.cpu_count() or 1) // 2), thread_name_prefix="coding")
        # Beside the device's: a load keeps no batch of another model waiting.
        self._load_thread = ThreadPoolExecutor(1, thread_name_prefix="loading")
        self._loop_task: asyncio.Task[None] | None = None
        self.models = ModelStore(self._load, config.model_memory_bytes, metrics)
        metrics.watch_queue(lambda: self._admission.held)

    async def start(self) -> None:
        """Open every model and run it once.

        Raises:
            ModelError: a model cannot be loaded.
            ServerError: a model is larger than the memory for all.
        """
        self._loop_task = asyncio.create_task(self._batcher.serve())
        await self.models.open(self._config.models)

    async def close(self, wait: bool = True) -> None:
        """Stop the batcher and the threads; jobs still queued never end, so drain first.

        Args:
            wait: for the batch that is on the device, and a model that is being loaded; neither can be interrupted.
        """
        if self._loop_task is not None:
            self._loop_task.cancel()
            with suppress(asyncio.CancelledError):
                await self._loop_task
        await self.models.close()
        for executor in (self._device_thread, self._load_thread, self._pool):
            await asyncio.to_thread(executor.shutdown, wait=wait, cancel_futures=True)

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

    async def encode(self, job: EncodeJob, caller: Caller) -> EncodeResult:
        """Map a job's images to latents; raises what `errors.STATUS_TABLE` lists."""
        name = self.model_name(job.model)
        images = 1 if isinstance(job.image, bytes) else len(job.image)
        async with (
            self._metrics.job(name, "encode"),
            self._admission.place(caller, images),
            self.models.hold(name, caller) as held,
        ):
            model = held.model
            prepared, prepare_ns = await self._code(partial(coding.prepare_encode, job, model.spec, self._config))
            batch, size = prepared
            task = Task(name, model, "encode", tuple(batch.shape[1:]), batch.dtype)
            height, width = coding.sides(batch)
            run = await self._compute(task, batch, height * width, caller)
            latents, finish_ns = await self._code(
                partial(coding.finish_encode, job, model, [done.tensors for done in run.results])
            )
            payloads, compress_ns = None, 0
            if job.lat_quality is not None:
                payloads, compress_ns = await self._code(
                    partial(coding.compress, job.lat_quality, latents.values, size, name, model.spec, self._config)
                )
        return EncodeResult(
            values=latents.values,
            logvar=latents.logvar,
            kind=job.kind,
            scaled=job.scaled,
            image_size=size,
            latent_space=model.spec.latent_space,
            execution=self._execution(task, held, run, prepare_ns, finish_ns + compress_ns),
            payloads=payloads,
        )

    async def decode(self, request: DecodeJob | PayloadJob, caller: Caller) -> DecodeResult:
        """Map a job's latents, or its payloads, to images; raises what `errors.STATUS_TABLE` lists."""
        name = self.model_name(request.model)
        places = len(request.payloads) if isinstance(request, PayloadJob) else len(request.latents)
        async with (
            self._metrics.job(name, "decode"),
            self._admission.place(caller, max(1, places)),
            self.models.hold(name, caller) as held,
        ):
            model = held.model
            job, decompress_ns = await self._decompressed(request, model)
            model.check_latent_space(job.latent_space, job.weights_digest)
            raw, prepare_ns = await self._code(partial(coding.prepare_decode, job, model, self._config))
            height, width = (side * model.spec.downsample_factor for side in raw.shape[2:])
            task = Task(name, model, "decode", tuple(raw.shape[1:]), coding.device_output(job.output))
            run = await self._compute(task, raw, height * width, caller)
            images, finish_ns = await self._code(
                partial(
                    coding.finish_decode,
                    job,
                    [done.tensors[0] for done in run.results],
                    self._config,
                )
            )
        return DecodeResult(
            images=images,
            execution=self._execution(task, held, run, decompress_ns + prepare_ns, finish_ns),
        )

    async def _decompressed(self, job: DecodeJob | PayloadJob, model: Autoencoder) -> tuple[DecodeJob, int]:
        """Return the job with its latents, and how long it took to read them from payloads, in nanoseconds."""
        if isinstance(job, DecodeJob):
            return job, 0
        return await self._code(partial(coding.decompress, job, model, self._config))

    async def _compute(self, task: Task, batch: Tensor, image_pixels: int, caller: Caller) -> Run:
        """Queue each image of a batch; the first failure takes the others out of the queue."""
        enqueued_ns = time.monotonic_ns()
        submissions = [
            asyncio.create_task(self._batcher.submit(one, key=task, pixels=image_pixels, caller=caller))
            for one in batch.split(1)
        ]
        try:
            return Run(enqueued_ns, await asyncio.gather(*submissions))
        except BaseException:
            for submission in submissions:
                submission.cancel()
            await asyncio.gather(*submissions, return_exceptions=True)
            raise

    async def _run_batch(self, key: Hashable, payloads: list[Tensor]) -> list[Computed | Exception]:
        assert isinstance(key, Task)  # the batcher hands back the key of `_compute`
        started = time.monotonic()
        with self.models.at_work(key.model):
            results = await self._in(self._device_thread, partial(self._run_on_device, key, payloads))
        elapsed_s = time.monotonic() - started
        self._metrics.computed(key.name, key.operation, len(payloads), elapsed_s)
        each_s = elapsed_s / len(payloads)
        self._admission.seconds_per_image += 0.1 * (each_s - self._admission.seconds_per_image)
        retries = sum(isinstance(result, Computed) and result.float32_retry for result in results)
        if retries:
            self._metrics.retried(key.name, retries)
        return results

    def _run_on_device(self, task: Task, payloads: list[Tensor]) -> list[Computed | Exception]:
        """Run one batch; where an image of it gives no finite output, all run again one by one."""
        retried: set[int] = set()
        try:
            tensors = self._forward(task, torch.cat(payloads), retried.update)
        except NonFiniteError as error:
            if len(payloads) == 1:
                return [error]
            return [result for one in payloads for result in self._run_on_device(task, [one])]
        return [
            Computed(tuple(tensor[index : index + 1] for tensor in tensors), index in retried)
            for index in range(len(payloads))
        ]

    def _forward(self, task: Task, batch: Tensor, on_retry: Callable[[list[int]], None]) -> tuple[Tensor, ...]:
        model = task.model
        if task.operation == "decode":
            if task.dtype == torch.uint8:
                return (model.decode(batch, pixels.to_uint8, on_retry),)
            return (model.decode(batch, on_retry=on_retry),)
        if task.dtype == torch.uint8:
            batch = pixels.to_float(batch.to(self._placement.device))
        posterior = model.encode(batch, on_retry)
        if posterior.logvar is None:
            return (posterior.mean,)
        return posterior.mean, posterior.logvar

    def _execution(self, task: Task, held: Held, run: Run, prepare_ns: int, finish_ns: int) -> Execution:
        stages = Stages(held.waited_ns + run.queue_ns, prepare_ns, run.compute_ns, finish_ns)
        self._metrics.answered(task.name, task.operation, len(run.outcomes), stages)
        return Execution(
            queue_ns=stages.queue_ns,
            compute_ns=run.compute_ns,
            coding_ns=prepare_ns + finish_ns,
            batch_size=max(outcome.batch_size for outcome in run.outcomes),
            float32_retry=any(done.float32_retry for done in run.results),
            model=task.name,
            weights_digest=task.model.spec.weights_digest,
            approximate_tiling=task.model.approximates(task.operation, (1, *task.shape)),
        )

    async def _load(self, model: ModelSource) -> Autoencoder:
        """Read a model and run it once each way, in the thread for that."""

        def load() -> Autoencoder:
            # What a failed request's traceback holds of evicted weights goes now; so do the device's cached blocks.
            gc.collect()
            if self._placement.device.type == "cuda":
                torch.cuda.empty_cache()
            autoencoder = load_autoencoder(
                model.source,
                device=str(self._placement.device),
                dtype=self._config.dtype,
                scale=model.scale,
                shift=model.shift,
                latent_space=model.latent_space,
                allow_pickle=self._config.allow_pickle,
                rewrites=self._config.rewrites,
            )
            _warm_up(autoencoder)
            return autoencoder

        return await self._in(self._load_thread, load)

    async def _code(self, work: Callable[[], T]) -> tuple[T, int]:
        """Run work in the pool; return its result and its duration in nanoseconds, waiting excluded."""

        def timed() -> tuple[T, int]:
            started_ns = time.monotonic_ns()
            return work(), time.monotonic_ns() - started_ns

        return await self._in(self._pool, timed)

    @staticmethod
    def _in(executor: Executor, work: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(executor, work)


def _warm_up(model: Autoencoder) -> None:
    """Run the decoder once, as loading ran the encoder: the first request pays for no lazy initialisation."""
    spec = model.spec
    sides = (-(-side // spec.downsample_factor) for side in spec.fixed_size or (WARM_UP_SIDE, WARM_UP_SIDE))
    model.decode(torch.zeros(1, spec.latent_channels, *sides), pixels.to_uint8)
