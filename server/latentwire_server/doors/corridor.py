# SPDX-License-Identifier: Apache-2.0
"""A message -> a job -> the engine -> a result -> a message: the one way that all doors lead to."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from latentwire_server.engine.engine import Engine
from latentwire_server.engine.jobs import Caller, DecodeJob, DecodeResult, EncodeJob, EncodeResult
from latentwire_server.engine.work import Passage
from latentwire_server.errors import InvalidRequest
from latentwire_server.telemetry.metrics import Metrics

J = TypeVar("J")
R = TypeVar("R")
A = TypeVar("A")


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

    async def _pass(
        self,
        operation: str,
        work: Callable[[str, Passage[J, R, A], Caller], Awaitable[A]],
        passage: Passage[J, R, A],
        caller: Caller,
    ) -> A:
        name = self._engine.model_name(passage.model)
        async with self._metrics.job(name, operation):
            try:
                return await work(name, passage, caller)
            except InvalidRequest as error:
                error.field = passage.fields.get(error.field, error.field)
                raise
