# SPDX-License-Identifier: Apache-2.0
"""Models at work: jobs in, results out.

A job's image is read in a thread pool, waits in the batcher, runs in the device's one thread, and its answer is
written in the pool again; the event loop only passes things on. A long batch pauses between the strips that it is
computed in, or the iterations of a refinement: small ones run meanwhile, and it ends there if nobody waits for it any
more.

    job ── admission ── model ── memory ── prepare (pool) ── batcher ── device thread ── finish (pool) ── result

Messages become jobs, and results messages, in the pool, too.
"""

import asyncio
import gc
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.load import load_autoencoder
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.placement import Placement
from latentwire_core.errors import UnknownModel
from latentwire_server.config import MIB, ModelSource, ServerConfig
from latentwire_server.engine import coding
from latentwire_server.engine.admission import Admission
from latentwire_server.engine.batching import Batcher, Outcome
from latentwire_server.engine.cores import use_cores
from latentwire_server.engine.device import Device
from latentwire_server.engine.jobs import (
    Caller,
    DecodeJob,
    DecodeResult,
    EncodeJob,
    EncodeResult,
    Execution,
    PayloadJob,
)
from latentwire_server.engine.lane import BatchLimits
from latentwire_server.engine.models import ModelStore
from latentwire_server.engine.task import Computed, Fit, Task, compute, warm_up
from latentwire_server.errors import forget_frames
from latentwire_server.telemetry.metrics import Metrics
from latentwire_server.telemetry.statistics import Stages

log = logging.getLogger("latentwire")

T = TypeVar("T")

GPU_DELAY_MS = 5.0
MESSAGES_OF_IMAGES = 8
"""How much memory images take that were read from files and wait, in times that of the largest message."""


class Abandoned(Exception):
    """Nobody waits for what is being computed."""


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
        return sum({outcome.batch: outcome.result.compute_ns for outcome in self.outcomes}.values())

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
        # MiB of images that were read from files and wait: a small file can be a large image.
        self._memory = Admission(MESSAGES_OF_IMAGES * config.max_message_mib)
        self._device = Device(torch.get_num_threads())
        one_core = partial(use_cores, 1)
        # Half as many as compute: of a worker, too, which has its share of the cores.
        coders = max(2, torch.get_num_threads() // 2)
        self._pool = ThreadPoolExecutor(coders, thread_name_prefix="coding", initializer=one_core)
        # Beside the device's: a load keeps no batch of another model waiting.
        self._load_thread = ThreadPoolExecutor(1, thread_name_prefix="loading", initializer=one_core)
        self._loop_task: asyncio.Task[None] | None = None
        self.models = ModelStore(self._load, config.model_memory_bytes, metrics)
        metrics.watch_queue(lambda: self._admission.held)

    async def start(self) -> None:
        """Open every model and run it once.

        Raises:
            ModelError: a model cannot be loaded.
            ServerError: a model is larger than the memory for all.
        """
        self._device.start()
        self._loop_task = asyncio.create_task(self._batcher.serve())
        await self.models.open(self._config.models)

    async def close(self, wait: bool = True) -> None:
        """Stop the batcher and the threads; jobs still queued never end, so drain first.

        Args:
            wait: for the batch that is on the device to end at its next pause, and for a model that is being loaded.
        """
        if self._loop_task is not None:
            self._loop_task.cancel()
            with suppress(asyncio.CancelledError):
                await self._loop_task
        await self.models.close()
        await self._device.close(wait)
        for executor in (self._load_thread, self._pool):
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
            async with self._room(job, model, caller) as room_ns:
                prepared, prepare_ns = await self._code(partial(coding.prepare_encode, job, model.spec, self._config))
                batch, size = prepared
                fit = None
                if job.lat_quality is not None and job.refinement:
                    fit = Fit(LatentOptimisation(job.refinement), job.lat_quality, size)
                task = Task(name, model, "encode", tuple(batch.shape[1:]), batch.dtype, fit)
                height, width = coding.sides(batch)
                run = await self._compute(task, batch, height * width, caller)
                del prepared, batch
            latents, finish_ns = await self._code(
                partial(coding.finish_encode, job, model, [done.tensors for done in run.results])
            )
            payloads, compress_ns = None, 0
            if job.lat_quality is not None:
                payloads, compress_ns = await self._code(
                    partial(coding.compress, job.lat_quality, latents, size, name, model.spec, self._config)
                )
        return EncodeResult(
            values=latents.values,
            logvar=latents.logvar,
            kind=job.kind,
            scaled=job.scaled,
            image_size=size,
            latent_space=model.spec.latent_space,
            execution=self._execution(task, held.waited_ns + room_ns, run, prepare_ns, finish_ns + compress_ns),
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
            model.check_latent_space(job)
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
            execution=self._execution(task, held.waited_ns, run, decompress_ns + prepare_ns, finish_ns),
        )

    async def aside(self, work: Callable[[], T]) -> T:
        """Run work in the pool, beside the model."""
        return await self._in(self._pool, work)

    @asynccontextmanager
    async def _room(self, job: EncodeJob, model: Autoencoder, caller: Caller) -> AsyncIterator[int]:
        """Wait for the memory that the images of a job's files take, and hold it; give the nanoseconds waited."""
        needed = await self.aside(partial(coding.bytes_of_files, job, model.spec, self._config))
        if not needed:
            yield 0
            return
        asked_ns = time.monotonic_ns()
        async with self._memory.place(replace(caller, patient=True), math.ceil(needed / MIB)):
            yield time.monotonic_ns() - asked_ns

    async def _decompressed(self, job: DecodeJob | PayloadJob, model: Autoencoder) -> tuple[DecodeJob, int]:
        """Return the job with its latents, and how long it took to read them from payloads, in nanoseconds."""
        if isinstance(job, DecodeJob):
            return job, 0
        return await self._code(partial(coding.decompress, job, model, self._config))

    async def _compute(self, task: Task, batch: Tensor, image_pixels: int, caller: Caller) -> Run:
        """Queue each image of a batch; the first failure takes the others out of the queue.

        Work of many passes waits among the large images: small ones run in its pauses.
        """
        enqueued_ns = time.monotonic_ns()
        submissions = [
            asyncio.create_task(self._batcher.submit(one, key=task, pixels=image_pixels * task.passes, caller=caller))
            for one in batch.split(1)
        ]
        try:
            return Run(enqueued_ns, await asyncio.gather(*submissions))
        except BaseException as error:
            for submission in submissions:
                submission.cancel()
            for outcome in await asyncio.gather(*submissions, return_exceptions=True):
                if isinstance(outcome, BaseException) and outcome is not error:  # that is for the caller
                    forget_frames(outcome)
            raise

    async def _run_batch(self, key: Hashable, payloads: list[Tensor]) -> list[Computed | Exception]:
        assert isinstance(key, Task)  # the batcher hands back the key of `_compute`
        with self.models.at_work(key.model):
            results, compute_ns = await self._device.run(partial(self._run_on_device, key, payloads))
        self._metrics.computed(key.name, key.operation, len(payloads), compute_ns / 1e9)
        each_s = compute_ns / 1e9 / len(payloads) / key.passes
        self._admission.seconds_per_image += 0.1 * (each_s - self._admission.seconds_per_image)
        retries = sum(isinstance(result, Computed) and result.float32_retry for result in results)
        if retries:
            self._metrics.retried(key.name, retries)
        return [
            replace(result, compute_ns=compute_ns) if isinstance(result, Computed) else result for result in results
        ]

    def _run_on_device(self, task: Task, payloads: list[Tensor]) -> list[Computed | Exception]:
        return compute(task, payloads, self._pause)

    def _pause(self) -> None:
        """End what nobody waits for, and let a small batch run that waits; between two strips, in the device's thread.

        Raises:
            Abandoned: the results are not wanted any more.
        """
        if self._batcher.is_abandoned:
            raise Abandoned
        if self._batcher.wants_in:
            self._device.lend(self._batcher.let_in)

    def _execution(self, task: Task, waited_ns: int, run: Run, prepare_ns: int, finish_ns: int) -> Execution:
        stages = Stages(waited_ns + run.queue_ns, prepare_ns, run.compute_ns, finish_ns)
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
        """Read a model in the thread for that, and run it once each way in the device's."""

        def load() -> Autoencoder:
            # What a failed request's traceback holds of evicted weights goes now; so do the device's cached blocks.
            gc.collect()
            if self._placement.device.type == "cuda":
                torch.cuda.empty_cache()
            return load_autoencoder(
                model.source,
                device=str(self._placement.device),
                dtype=self._config.dtype,
                scale=model.scale,
                shift=model.shift,
                latent_space=model.latent_space,
                allow_pickle=self._config.allow_pickle,
                rewrites=self._config.rewrites,
                activation_memory_mib=self._config.activation_memory_mib,
            )

        autoencoder = await self._in(self._load_thread, load)
        await self._device.run(partial(warm_up, autoencoder))
        return autoencoder

    async def _code(self, work: Callable[[], T]) -> tuple[T, int]:
        """Run work in the pool; return its result and its duration in nanoseconds, waiting excluded."""

        def timed() -> tuple[T, int]:
            started_ns = time.monotonic_ns()
            return work(), time.monotonic_ns() - started_ns

        return await self.aside(timed)

    @staticmethod
    def _in(executor: Executor, work: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(executor, work)
