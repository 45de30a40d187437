# SPDX-License-Identifier: Apache-2.0
"""Served models: names -> autoencoders in memory, kept within a budget.

Every model is opened once at the start, so that its spec stays known; its weights come and go. A request holds the
weights that it works with. Where another model needs the memory, idle weights are evicted, the least recently used
first. If every model is busy, the evicted ones finish their requests and accept no new ones, so that no model can block
another for ever.

    name ── in memory? ─┬─ yes ───────────────────────────────┬── held until the request is done
                        └─ no ── one load for all who ask ────┘
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, fields

from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_core.errors import CheckpointError, CodecError
from latentwire_server.config import MIB, ModelSource
from latentwire_server.engine.jobs import Caller
from latentwire_server.engine.residency import HostedModel, Residency
from latentwire_server.errors import DeadlineExceeded, ModelUnavailable, ServerError
from latentwire_server.telemetry.metrics import Metrics

log = logging.getLogger("latentwire")

Load = Callable[[ModelSource], Awaitable[Autoencoder]]
"""Reads a model from disk and makes it ready to run; one call at a time."""

# After a failed load, requests are refused at once for so long; then the next one tries again.
REST_S = 5.0


@dataclass(frozen=True)
class Held:
    """A model whose weights stay in memory while they are held, and the nanoseconds waited for them."""

    model: Autoencoder
    waited_ns: int


class ModelStore(Mapping[str, HostedModel]):
    """The models of one server by name, in the order of the configuration; for one event loop.

    Args:
        load: reads one model.
        budget_bytes: the memory for all weights together; None: no limit.
        metrics: counts what happens.
    """

    def __init__(self, load: Load, budget_bytes: int | None, metrics: Metrics) -> None:
        self._read = load
        self._budget_bytes = math.inf if budget_bytes is None else budget_bytes
        self._metrics = metrics
        self._served: dict[str, HostedModel] = {}
        # Least recently used first.
        self._in_memory: list[Residency] = []
        self._turn = asyncio.Lock()
        self._loads: set[asyncio.Task[None]] = set()

    def __getitem__(self, name: str) -> HostedModel:
        return self._served[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._served)

    def __len__(self) -> int:
        return len(self._served)

    async def open(self, sources: Sequence[ModelSource]) -> None:
        """Load every model once, and keep as many as the budget allows, the first ones first.

        The size of a model is not known before its first load, so its weights may exceed the budget for that time.

        Raises:
            ServerError: a model is larger than the whole budget.
            CodecError: a model cannot be loaded.
        """
        for source in sources:
            await self._open(source)

    async def close(self) -> None:
        """Begin no further load; a load that has begun ends in its thread."""
        for task in self._loads:
            task.cancel()
        await asyncio.gather(*self._loads, return_exceptions=True)

    @asynccontextmanager
    async def hold(self, name: str, caller: Caller) -> AsyncIterator[Held]:
        """Bring a model's weights into memory where they are not, and keep them there while the context lasts.

        Raises:
            DeadlineExceeded: the caller's deadline passed before the weights were in memory.
            ModelUnavailable: the weights cannot be loaded now.
        """
        asked_ns = time.monotonic_ns()
        model = self[name]
        residency = model.residency or self._begin(model)
        with residency.held():
            weights = await self._weights(residency, caller)
            self._in_memory.remove(residency)
            self._in_memory.append(residency)
            yield Held(weights, time.monotonic_ns() - asked_ns)

    @contextmanager
    def at_work(self, weights: Autoencoder) -> Iterator[None]:
        """Keep the weights of a batch in memory while the batch runs: it may outlast its requests."""
        with next(residency for residency in self._in_memory if residency.weights is weights).held():
            yield

    async def _open(self, source: ModelSource) -> None:
        log.info("loading %s from %s", source.name, source.source)
        started = time.monotonic()
        weights = await self._read(source)
        model = HostedModel(source, weights.spec)
        if model.weights_bytes > self._budget_bytes:
            raise ServerError(
                f"the weights of model {source.name!r} take {_mib(model.weights_bytes)} MiB; all models together may "
                f"take {_mib(self._budget_bytes)}: raise --model-memory, or leave the model out"
            )
        self._served[source.name] = model
        self._metrics.serves(source.name)
        if self._missing_bytes(model.weights_bytes) <= 0:
            model.residency = Residency(model)
            self._keep(model.residency, weights, time.monotonic() - started)
        else:
            log.info("checked %s; it is loaded when it is asked for, in the place of another", _described(model))

    async def _weights(self, residency: Residency, caller: Caller) -> Autoencoder:
        name = residency.model.source.name
        try:
            async with asyncio.timeout(caller.remaining_s):
                await residency.ready.wait()
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"the deadline passed while model {name!r} was being loaded; send the request again, with more time"
            ) from error
        if residency.weights is None:
            raise ModelUnavailable(
                f"model {name!r} cannot be loaded now; the server's log says why. Send the request again later, or "
                "to another model"
            )
        return residency.weights

    def _begin(self, model: HostedModel) -> Residency:
        residency = model.residency = Residency(model)
        task = asyncio.create_task(self._load(residency))
        self._loads.add(task)
        task.add_done_callback(self._loads.discard)
        return residency

    async def _load(self, residency: Residency) -> None:
        model = residency.model
        try:
            # Models are loaded one after the other, in the order of the requests, so that each knows the free memory.
            async with self._turn:
                if not await self._make_room(residency):
                    return
                log.info("loading %s from %s", model.source.name, model.source.source)
                started = time.monotonic()
                weights = await self._read(model.source)
                _check_unchanged(model, weights.spec)
                self._keep(residency, weights, time.monotonic() - started)
        except Exception as error:
            log.error("%s cannot be loaded: %s", model.source.name, error, exc_info=not isinstance(error, CodecError))
            self._metrics.load_failed(model.source.name)
            asyncio.get_running_loop().call_later(REST_S, _take_no_more, residency)
        finally:
            residency.ready.set()

    async def _make_room(self, wanted: Residency) -> bool:
        """Evict weights until the wanted ones fit, and wait for the requests that hold the evicted weights.

        Returns:
            False: nobody waits for the wanted weights any more, and the weights not yet evicted stay.
        """
        missing = self._missing_bytes(wanted.model.weights_bytes)
        leaving: list[Residency] = []
        for residency in sorted(self._in_memory, key=lambda residency: residency.holders > 0):
            if missing <= 0:
                break
            missing -= residency.model.weights_bytes
            leaving.append(residency)
            _take_no_more(residency)
        for number, residency in enumerate(leaving):
            while residency.holders and wanted.holders:
                await _first(residency.idle, wanted.idle)
            if not wanted.holders:
                log.info("%s is not loaded: nobody waits for it any more", wanted.model.source.name)
                _take_no_more(wanted)
                for other in leaving[number:]:
                    other.model.residency = other.model.residency or other
                return False
            self._evict(residency)
        return True

    def _missing_bytes(self, wanted_bytes: int) -> float:
        held = sum(residency.model.weights_bytes for residency in self._in_memory)
        return held + wanted_bytes - self._budget_bytes

    def _keep(self, residency: Residency, weights: Autoencoder, seconds: float) -> None:
        residency.weights = weights
        residency.ready.set()
        self._in_memory.append(residency)
        self._metrics.loaded(residency.model.source.name, residency.model.weights_bytes, seconds)
        log.info("loaded %s, in %.1f s", _described(residency.model), seconds)

    def _evict(self, residency: Residency) -> None:
        self._in_memory.remove(residency)
        residency.weights = None
        self._metrics.evicted(residency.model.source.name)
        log.info("evicted %s, %d MiB", residency.model.source.name, _mib(residency.model.weights_bytes))


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _take_no_more(residency: Residency) -> None:
    """Let the next request for the model begin a load of its own."""
    if residency.model.residency is residency:
        residency.model.residency = None


def _check_unchanged(model: HostedModel, now: AutoencoderSpec) -> None:
    """Refuse a model whose spec is no longer the one that clients know."""
    changed = [item.name for item in fields(now) if getattr(now, item.name) != getattr(model.spec, item.name)]
    if changed:
        raise CheckpointError(
            f"{model.source.source} changed since the server started (its {', '.join(changed)}; the weights were "
            f"{model.spec.weights_digest[:12]}, are {now.weights_digest[:12]}); put it back, or restart the server"
        )


def _described(model: HostedModel) -> str:
    spec = model.spec
    return (
        f"{model.source.name}: {spec.class_name}, weights {spec.weights_digest[:12]}, {_mib(model.weights_bytes)} MiB, "
        f"{spec.dtype} on {spec.device}"
    )


def _mib(number: float) -> int:
    return math.ceil(number / MIB)
