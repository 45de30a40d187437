# SPDX-License-Identifier: Apache-2.0
"""The two ways through the engine: a message with images -> their latents, a message with latents -> their images.

Threads convert messages, and coding processes read and write image files, so that no message waits for a file. Images
that have to wait for memory leave their process, and are opened again when the memory is there.

    places ── model ── thread: message -> job ─────────────── thread: check, pad ── batcher ── device ──┐
                          └── process: file ── memory ── pixels ──┘                                     │
                                              thread: finish, result -> answer ── process: files ───────┘
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

from torch import Tensor

from latentwire_codec.images.geometry import Pixels
from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_server.config import ServerConfig
from latentwire_server.engine import finishing, preparing
from latentwire_server.engine.batching import BatchedResult, Batcher
from latentwire_server.engine.coding.clock import Clock
from latentwire_server.engine.coding.coders import Coders, Reading
from latentwire_server.engine.coding.threads import Threads
from latentwire_server.engine.jobs import (
    Caller,
    DecodeJob,
    DecodeResult,
    EncodeJob,
    EncodeResult,
    Execution,
    FileOutput,
    sides,
)
from latentwire_server.engine.models import ModelStore
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


@dataclass(frozen=True)
class Passage(Generic[J, R, A]):
    """What a door knows of one request.

    Attributes:
        model: the name of the model; empty: the default.
        images: counts the images, quickly, before the message is read as a whole.
        to_job: makes the job; runs in a thread, with the model in memory.
        to_answer: makes the answer of the result; runs in a thread.
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
        finish: maps what the device gave, and the files made of it, to the result, which lacks its Execution only.
        files: the format of the files that are made of what the device gives, and their (height, width); None: no files
            are.
    """

    task: Task
    batch: Tensor
    pixels: int
    finish: Callable[[list[Computed], list[bytes]], Callable[[Execution], R]]
    files: tuple[FileOutput, tuple[int, int]] | None = None


@dataclass(frozen=True)
class Visit:
    """What one request has while it is in the engine.

    Attributes:
        name: the name of the model as it is served.
        model: the model.
        caller: who asks.
        memory: the memory for pixels of files.
        clock: where the time goes before the model.
    """

    name: str
    model: Autoencoder
    caller: Caller
    memory: Claim
    clock: Clock


Prepare = Callable[[Callable[[Autoencoder], J], Visit], Awaitable[Prepared[R]]]


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
        threads: convert messages.
        coders: read and write image files.
    """

    def __init__(
        self,
        config: ServerConfig,
        metrics: Metrics,
        models: ModelStore,
        batcher: Batcher[Tensor, Computed],
        places: Shares,
        threads: Threads,
        coders: Coders,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._models = models
        self._batcher = batcher
        self._places = places
        # In MiB: a small file can be a large image.
        self._memory = Shares(MESSAGES_OF_IMAGES * config.max_message_mib)
        self._threads = threads
        self._coders = coders

    async def encode(self, name: str, passage: Passage[EncodeJob, EncodeResult, A], caller: Caller) -> A:
        """Map images to latents with the served model of a name; raises what `errors.STATUS_TABLE` lists."""
        return await self._carry_out(name, passage, self._prepare_encode, caller)

    async def decode(self, name: str, passage: Passage[DecodeJob, DecodeResult, A], caller: Caller) -> A:
        """Map latents to images; as `encode`."""
        return await self._carry_out(name, passage, self._prepare_decode, caller)

    async def _carry_out(self, name: str, passage: Passage[J, R, A], prepare: Prepare[J, R], caller: Caller) -> A:
        images, before, after = passage.images(), Clock(), Clock()
        async with self._places.hold(caller, images), self._models.hold(name, caller) as held:
            # Who holds a place waits for memory.
            with self._memory.claim(replace(caller, patient=True)) as memory:
                prepared = await prepare(passage.to_job, Visit(name, held.model, caller, memory, before))
                task, finish, output = prepared.task, prepared.finish, prepared.files
                run = await self._compute(prepared, caller)
                del prepared  # with the images, whose memory is given back
            files = []
            if output is not None:
                for result in run.results:
                    pixels = result.tensors[0][0].numpy()
                    files.append(await self._coders.write(pixels, output[1], output[0], caller, after))
                    del pixels
            before.waited_ns += held.waited_ns
            done = partial(finish, run.results, files)
            answer, stages = await self._threads.run(
                lambda: _answer(task, run, done, passage.to_answer, before, after), caller, after
            )
        self._metrics.answered(task.name, task.operation, len(run.outcomes), stages)
        return answer

    async def _prepare_encode(self, to_job: Callable[[Autoencoder], EncodeJob], visit: Visit) -> Prepared[EncodeResult]:
        def begin() -> tuple[EncodeJob, Prepared[EncodeResult] | None]:
            job = to_job(visit.model)
            preparing.check_encode(job, self._config)
            raw = isinstance(job.image, Tensor)
            return job, _prepared_encode(job, [], visit, self._config) if raw else None

        job, prepared = await self._threads.run(begin, visit.caller, visit.clock)
        if prepared is not None:
            return prepared
        pictures = await self._read(job, visit)
        return await self._threads.run(
            lambda: _prepared_encode(job, pictures, visit, self._config), visit.caller, visit.clock
        )

    async def _prepare_decode(self, to_job: Callable[[Autoencoder], DecodeJob], visit: Visit) -> Prepared[DecodeResult]:
        return await self._threads.run(
            lambda: _prepared_decode(to_job(visit.model), visit, self._config), visit.caller, visit.clock
        )

    async def _read(self, job: EncodeJob, visit: Visit) -> list[Pixels]:
        """Map a job's files to their pixels; the memory for all of them is taken when the first header is read."""
        assert not isinstance(job.image, Tensor)  # `_prepare_encode` reads only files
        files = (job.image,) if isinstance(job.image, bytes) else job.image
        target = preparing.target_size(job, visit.model.spec)
        needed_mib = 0

        def admit(width: int, height: int) -> bool:
            nonlocal needed_mib
            if not visit.memory.held:
                needed_mib = preparing.memory_of_files(job, (height, width), target, self._config)
            return bool(visit.memory.held) or visit.memory.take_now(needed_mib)

        pictures: list[Pixels] = []
        for file in files:
            reading = Reading(file, self._config.image_limits, target, admit)
            pixels = await self._coders.read(reading, visit.caller, visit.clock)
            if pixels is None:
                with visit.clock.waiting():
                    await visit.memory.take(needed_mib)
                pixels = await self._coders.read(reading, visit.caller, visit.clock)
            assert pixels is not None  # the claim holds the memory now
            pictures.append(pixels)
            preparing.check_picture(pictures, len(files), self._config)
        return pictures

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


def _prepared_encode(
    job: EncodeJob, pictures: list[Pixels], visit: Visit, config: ServerConfig
) -> Prepared[EncodeResult]:
    name, model = visit.name, visit.model
    images = preparing.prepare_encode(job, pictures, model.spec, config)
    pictures.clear()  # copies of them are in `images`
    batch, size = images.batch, images.size
    fit = None
    if job.lat_quality is not None and job.refinement:
        fit = Fit(LatentOptimisation(job.refinement), job.lat_quality, size)

    def finish(results: list[Computed], files: list[bytes]) -> Callable[[Execution], EncodeResult]:
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


def _prepared_decode(job: DecodeJob, visit: Visit, config: ServerConfig) -> Prepared[DecodeResult]:
    model = visit.model
    raw = preparing.prepare_decode(job, model, config)

    def finish(results: list[Computed], files: list[bytes]) -> Callable[[Execution], DecodeResult]:
        images = finishing.finish_decode(job, [result.tensors[0] for result in results], files, config)
        return partial(DecodeResult, images)

    height, width = (side * model.spec.downsample_factor for side in raw.shape[2:])
    task = Task(visit.name, model, "decode", tuple(raw.shape[1:]), preparing.device_output(job.output))
    files = (job.output, job.image_size or (height, width)) if isinstance(job.output, FileOutput) else None
    return Prepared(task, raw, height * width, finish, files)


def _answer(
    task: Task,
    run: Run,
    finish: Callable[[], Callable[[Execution], R]],
    to_answer: Callable[[R], A],
    before: Clock,
    after: Clock,
) -> tuple[A, Stages]:
    """Finish a job, in a thread; return the answer, and where the time went."""
    started_ns = time.monotonic_ns()
    to_result = finish()
    finish_ns = after.worked_ns + time.monotonic_ns() - started_ns
    stages = Stages(before.waited_ns + run.queue_ns + after.waited_ns, before.worked_ns, run.compute_ns, finish_ns)
    execution = Execution(
        queue_ns=stages.queue_ns,
        compute_ns=run.compute_ns,
        coding_ns=before.worked_ns + finish_ns,
        batch_size=max(outcome.batch_size for outcome in run.outcomes),
        float32_retry=any(done.float32_retry for done in run.results),
        model=task.name,
        weights_digest=task.model.spec.weights_digest,
        approximate_tiling=task.model.approximates(task.operation, (1, *task.shape)),
    )
    return to_answer(to_result(execution)), stages
