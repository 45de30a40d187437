# SPDX-License-Identifier: Apache-2.0
"""The two ways through the engine: a message with images -> their latents, a message with latents -> their images.

A request takes three trips to other threads. Only images that have to wait for memory take a fourth one: their job goes
back to the pool when the memory is there.

    places ── model ── pool: message -> job, read, check, pad ── batcher ── device ── pool: finish, result -> answer
                                       └── memory for files
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

from torch import Tensor

from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_server.config import ServerConfig
from latentwire_server.engine import finishing, preparing
from latentwire_server.engine.batching import BatchedResult, Batcher
from latentwire_server.engine.jobs import Caller, DecodeJob, DecodeResult, EncodeJob, EncodeResult, Execution, sides
from latentwire_server.engine.models import ModelStore
from latentwire_server.engine.preparing import MissingMemory
from latentwire_server.engine.shares import Claim, Shares
from latentwire_server.engine.task import Computed, Fit, Task
from latentwire_server.errors import forget_frames
from latentwire_server.telemetry.metrics import Metrics
from latentwire_server.telemetry.statistics import Stages

MESSAGES_OF_IMAGES = 8
"""The memory for images that were read from files and wait, in times that of the largest message."""

J = TypeVar("J")
R = TypeVar("R")
A = TypeVar("A")
T = TypeVar("T")


@dataclass(frozen=True)
class Passage(Generic[J, R, A]):
    """What a door knows of one request.

    Attributes:
        model: the model as the request names it; empty: the default.
        images: counts the images, quickly, before the message is read as a whole.
        to_job: makes the job; runs in the pool, with the model in memory.
        to_answer: makes the answer of the result; runs in the pool.
        fields: attribute of a job -> the field of the door's protocol that sets it.
    """

    model: str
    images: Callable[[], int]
    to_job: Callable[[Autoencoder], J]
    to_answer: Callable[[R], A]
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Prepared(Generic[R]):
    """A job that is ready for the device.

    Attributes:
        task: what the device does with each image, or the latents of one.
        batch: the images or latents.
        pixels: the pixels of one image.
        finish: maps what the device gave to the result, which lacks its Execution only.
    """

    task: Task
    batch: Tensor
    pixels: int
    finish: Callable[[list[Computed]], Callable[[Execution], R]]


TakeMemory = Callable[[int], bool]
"""Takes so many MiB for images; False: they are not free now."""
Prepare = Callable[[J, Autoencoder, TakeMemory], Prepared[R] | MissingMemory]


@dataclass(frozen=True)
class Run:
    """What became of the images of one job."""

    enqueued_ns: int
    outcomes: list[BatchedResult[Computed]]

    @property
    def results(self) -> list[Computed]:
        """The result of each image, in order."""
        return [outcome.result for outcome in self.outcomes]

    @property
    def compute_ns(self) -> int:
        """The duration of the batches that the images were in, each counted once."""
        return sum({outcome.batch: outcome.result.compute_ns for outcome in self.outcomes}.values())

    @property
    def queue_ns(self) -> int:
        """The rest of the time from the queueing of the images to the last result."""
        return max(o.ended_ns for o in self.outcomes) - self.enqueued_ns - self.compute_ns


class JobRunner:
    """Carries out requests; for one event loop.

    Args:
        config: the limits.
        metrics: counts what happens.
        models: the models by name.
        batcher: the queue in front of the device.
        places: the places in the queue.
        pool: runs what is not the model's.
    """

    def __init__(
        self,
        config: ServerConfig,
        metrics: Metrics,
        models: ModelStore,
        batcher: Batcher[Tensor, Computed],
        places: Shares,
        pool: Executor,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._models = models
        self._batcher = batcher
        self._places = places
        # In MiB: a small file can be a large image.
        self._memory = Shares(MESSAGES_OF_IMAGES * config.max_message_mib)
        self._pool = pool

    async def encode(self, name: str, passage: Passage[EncodeJob, EncodeResult, A], caller: Caller) -> A:
        """Map images to latents with the served model of a name; raises what `errors.STATUS_TABLE` lists."""
        return await self._carry_out(name, passage, partial(_prepare_encode, name, self._config), caller)

    async def decode(self, name: str, passage: Passage[DecodeJob, DecodeResult, A], caller: Caller) -> A:
        """Map latents to images; as `encode`."""
        return await self._carry_out(name, passage, partial(_prepare_decode, name, self._config), caller)

    async def _carry_out(self, name: str, passage: Passage[J, R, A], prepare: Prepare[J, R], caller: Caller) -> A:
        images = passage.images()
        async with self._places.hold(caller, images), self._models.hold(name, caller) as held:
            # Who holds a place waits for memory.
            with self._memory.claim(replace(caller, patient=True)) as memory:
                prepared, prepare_ns, waited_ns = await self._prepare(passage.to_job, prepare, held.model, memory)
                task, finish = prepared.task, prepared.finish
                run = await self._compute(prepared, caller)
                del prepared  # with the images, whose memory is given back
            answer, stages = await self._in_pool(
                partial(_answer, task, run, finish, passage.to_answer, held.waited_ns + waited_ns, prepare_ns)
            )
        self._metrics.answered(task.name, task.operation, len(run.outcomes), stages)
        return answer

    async def _prepare(
        self, to_job: Callable[[Autoencoder], J], prepare: Prepare[J, R], model: Autoencoder, memory: Claim
    ) -> tuple[Prepared[R], int, int]:
        """Return the prepared job, the nanoseconds of preparing it, and those of waiting for memory."""

        def timed(make_job: Callable[[], J], take: TakeMemory) -> tuple[J, Prepared[R] | MissingMemory, int]:
            started_ns = time.monotonic_ns()
            job = make_job()
            return job, prepare(job, model, take), time.monotonic_ns() - started_ns

        job, prepared, prepare_ns = await self._in_pool(partial(timed, partial(to_job, model), memory.take_now))
        waited_ns = 0
        if isinstance(prepared, MissingMemory):
            asked_ns = time.monotonic_ns()
            await memory.take(prepared.mib)
            waited_ns = time.monotonic_ns() - asked_ns
            _, prepared, again_ns = await self._in_pool(partial(timed, lambda: job, lambda _: True))
            prepare_ns += again_ns
        assert not isinstance(prepared, MissingMemory)  # the claim holds it now
        return prepared, prepare_ns, waited_ns

    async def _compute(self, prepared: Prepared[R], caller: Caller) -> Run:
        """Queue each image of a batch; the first failure takes the others out of the queue.

        Work of many passes waits among the large images: small ones run in its pauses.
        """
        enqueued_ns = time.monotonic_ns()
        task, pixels = prepared.task, prepared.pixels * prepared.task.passes
        if len(prepared.batch) == 1:
            only = self._batcher.submit(prepared.batch, key=task, pixels=pixels, caller=caller)
            return Run(enqueued_ns, [await only])
        submissions = [
            asyncio.create_task(self._batcher.submit(one, key=task, pixels=pixels, caller=caller))
            for one in prepared.batch.split(1)
        ]
        try:
            return Run(enqueued_ns, await asyncio.gather(*submissions))
        except BaseException as error:
            for submission in submissions:
                submission.cancel()
            for outcome in await asyncio.gather(*submissions, return_exceptions=True):
                if isinstance(outcome, BaseException) and outcome is not error:  # `error` is for the caller
                    forget_frames(outcome)
            raise

    def _in_pool(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._pool, work)


def _prepare_encode(
    name: str, config: ServerConfig, job: EncodeJob, model: Autoencoder, take: TakeMemory
) -> Prepared[EncodeResult] | MissingMemory:
    images = preparing.prepare_encode(job, model.spec, config, take)
    if isinstance(images, MissingMemory):
        return images
    batch, size = images.batch, images.size
    fit = None
    if job.lat_quality is not None and job.refinement:
        fit = Fit(LatentOptimisation(job.refinement), job.lat_quality, size)

    def finish(results: list[Computed]) -> Callable[[Execution], EncodeResult]:
        latents = finishing.finish_encode(job, model, [result.tensors for result in results])
        payloads = None
        if job.lat_quality is not None:
            payloads = finishing.compress(job.lat_quality, latents, size, name, model.spec, config)
        return lambda execution: EncodeResult(
            values=latents.values,
            logvar=latents.logvar,
            kind=job.kind,
            scaled=job.scaled,
            image_size=size,
            latent_space=model.spec.latent_space,
            execution=execution,
            payloads=payloads,
        )

    height, width = sides(batch)
    task = Task(name, model, "encode", tuple(batch.shape[1:]), batch.dtype, fit)
    return Prepared(task, batch, height * width, finish)


def _prepare_decode(
    name: str, config: ServerConfig, job: DecodeJob, model: Autoencoder, take: TakeMemory
) -> Prepared[DecodeResult]:
    raw = preparing.prepare_decode(job, model, config)

    def finish(results: list[Computed]) -> Callable[[Execution], DecodeResult]:
        images = finishing.finish_decode(job, [result.tensors[0] for result in results], config)
        return partial(DecodeResult, images)

    height, width = (side * model.spec.downsample_factor for side in raw.shape[2:])
    task = Task(name, model, "decode", tuple(raw.shape[1:]), preparing.device_output(job.output))
    return Prepared(task, raw, height * width, finish)


def _answer(
    task: Task,
    run: Run,
    finish: Callable[[list[Computed]], Callable[[Execution], R]],
    to_answer: Callable[[R], A],
    waited_ns: int,
    prepare_ns: int,
) -> tuple[A, Stages]:
    """Finish a job, in the pool; return the answer, and where the time went."""
    started_ns = time.monotonic_ns()
    to_result = finish(run.results)
    finish_ns = time.monotonic_ns() - started_ns
    stages = Stages(waited_ns + run.queue_ns, prepare_ns, run.compute_ns, finish_ns)
    execution = Execution(
        queue_ns=stages.queue_ns,
        compute_ns=run.compute_ns,
        coding_ns=prepare_ns + finish_ns,
        batch_size=max(outcome.batch_size for outcome in run.outcomes),
        float32_retry=any(done.float32_retry for done in run.results),
        model=task.name,
        weights_digest=task.model.spec.weights_digest,
        approximate_tiling=task.model.approximates(task.operation, (1, *task.shape)),
    )
    return to_answer(to_result(execution)), stages
