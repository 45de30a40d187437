# SPDX-License-Identifier: Apache-2.0
"""A message -> a job -> the engine -> a result -> a message: the one way that all doors lead to."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_server.engine.engine import Engine
from latentwire_server.engine.jobs import Caller, DecodeJob, DecodeResult, EncodeJob, EncodeResult
from latentwire_server.errors import InvalidRequest
from latentwire_server.telemetry.metrics import Metrics

J = TypeVar("J")
R = TypeVar("R")
A = TypeVar("A")


Work = Callable[[str, int, Callable[[Autoencoder], J], Callable[[R], A], Caller], Awaitable[A]]
"""One way of the engine: `JobRunner.encode` or `JobRunner.decode`."""


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


class Corridor:
    """Leads the requests of every door to the engine.

    Args:
        engine: does the work.
        metrics: counts how each request ended.
    """

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics

    async def encode(self, passage: Passage[EncodeJob, EncodeResult, A], caller: Caller) -> A:
        """Map images to latents; raises what `errors.STATUS_TABLE` lists, with the fields of the door."""
        return await self._pass("encode", self._engine.work.encode, passage, caller)

    async def decode(self, passage: Passage[DecodeJob, DecodeResult, A], caller: Caller) -> A:
        """Map latents to images; raises what `errors.STATUS_TABLE` lists, with the fields of the door."""
        return await self._pass("decode", self._engine.work.decode, passage, caller)

    async def _pass(self, operation: str, work: Work[J, R, A], passage: Passage[J, R, A], caller: Caller) -> A:
        name = self._engine.model_name(passage.model)
        async with self._metrics.job(name, operation):
            try:
                return await work(name, passage.images(), passage.to_job, passage.to_answer, caller)
            except InvalidRequest as error:
                error.field = passage.fields.get(error.field, error.field)
                raise
