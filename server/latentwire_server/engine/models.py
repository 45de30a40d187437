# SPDX-License-Identifier: Apache-2.0
"""Served models: names -> autoencoders in memory, kept within a budget.

Every model is opened once at the start, so what it is stays known; its weights come and go. A request holds the weights
that it works with. Where another model needs the room, idle weights go, the least recently used first; where all are
held, those that go take no further requests and wait for the ones they have, so no model keeps another out for ever.

    name ── in memory? ─┬─ yes ───────────────────────────────┬── held until the request is done
                        └─ no ── one load for all who ask ────┘
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, fields

from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_core.errors import CheckpointError, CodecError
from latentwire_server.config import MIB, ModelSource
from latentwire_server.engine.jobs import Caller
from latentwire_server.errors import DeadlineExceeded, ModelUnavailable, ServerError
from latentwire_server.telemetry.metrics import Metrics

log = logging.getLogger("latentwire")

Load = Callable[[ModelSource], Awaitable[Autoencoder]]
"""Reads a model from disk and makes it ready to run; one call at a time."""

# How long a load that failed stands before the next request tries again: a stream of requests is answered at once.
REST_S = 5.0


@dataclass(eq=False)
class Stay:
    """The weights of one model from the load that brings them to the eviction that ends it.

    Attributes:
        model: whose they are.
        weights: None until they are loaded, for good where that fails.
        ready: set when the load has ended, one way or the other.
        holders: requests that work with them, or wait for them, and batches on the device.
        idle: set while there are none.
    """

    model: "ServedModel"
    weights: Autoencoder | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    holders: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Count one more holder while the context lasts."""
        self.holders += 1
        self.idle.clear()
        try:
            yield
        finally:
            self.holders -= 1
            if not self.holders:
                self.idle.set()


@dataclass(eq=False)
class ServedModel:
    """A model that requests may name.

    Attributes:
        source: where it comes from.
        spec: what it is; known whether or not it is in memory.
        stay: the one that requests join; None: the next one begins a load.
    """

    source: ModelSource
    spec: AutoencoderSpec
    stay: Stay | None = None

    @property
    def loaded(self) -> bool:
        """Whether a request finds the weights in memory."""
        return self.stay is not None and self.stay.weights is not None

    @property
    def weights_bytes(self) -> int:
        """What the weights take of the device's memory, or of the host's, at most."""
        return self.spec.weights_bytes


@dataclass(frozen=True)
class Held:
    """A model whose weights stay in memory as long as they are held, and how long that took, in nanoseconds."""

    model: Autoencoder
    waited_ns: int


class ModelStore(Mapping[str, ServedModel]):
    """The models of one server by name, in the order of the configuration; for one event loop.

    Args:
        load: reads one.
        budget_bytes: what the weights in memory may take together; None: no limit.
        metrics: told what happens.
    """

    def __init__(self, load: Load, budget_bytes: int | None, metrics: Metrics) -> None:
        self._read = load
        self._budget_bytes = math.inf if budget_bytes is None else budget_bytes
        self._metrics = metrics
        self._served: dict[str, ServedModel] = {}
        # Least recently used first.
        self._in_memory: list[Stay] = []
        self._turn = asyncio.Lock()
        self._loads: set[asyncio.Task[None]] = set()

    def __getitem__(self, name: str) -> ServedModel:
        return self._served[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._served)

    def __len__(self) -> int:
        return len(self._served)

    async def open(self, sources: Sequence[ModelSource]) -> None:
        """Load every model once, and keep those that the budget has room for, the first ones first.

        While a model is loaded for the first time its size is not known: its weights are beside those kept.

        Raises:
            ServerError: a model is larger than the whole budget.
            CodecError: a model cannot be loaded.
        """
        for source in sources:
            await self._open(source)

    async def close(self) -> None:
        """Begin no further load; one that is under way is left to its thread."""
        for task in self._loads:
            task.cancel()
        await asyncio.gather(*self._loads, return_exceptions=True)

    @asynccontextmanager
    async def hold(self, name: str, caller: Caller) -> AsyncIterator[Held]:
        """Bring a model's weights into memory where they are not, and keep them there while the context lasts.

        Raises:
            DeadlineExceeded: the caller's deadline passed before they were there.
            ModelUnavailable: they cannot be loaded now.
        """
        asked_ns = time.monotonic_ns()
        model = self[name]
        stay = model.stay or self._begin(model)
        with stay.held():
            weights = await self._weights(stay, caller)
            self._in_memory.remove(stay)
            self._in_memory.append(stay)
            yield Held(weights, time.monotonic_ns() - asked_ns)

    @contextmanager
    def at_work(self, weights: Autoencoder) -> Iterator[None]:
        """Keep weights that a request holds while a batch works with them: it outlasts a request that is given up."""
        with next(stay for stay in self._in_memory if stay.weights is weights).held():
            yield

    async def _open(self, source: ModelSource) -> None:
        log.info("loading %s from %s", source.name, source.source)
        started = time.monotonic()
        weights = await self._read(source)
        model = ServedModel(source, weights.spec)
        if model.weights_bytes > self._budget_bytes:
            raise ServerError(
                f"the weights of model {source.name!r} take {_mib(model.weights_bytes)} MiB; all models together may "
                f"take {_mib(self._budget_bytes)}: raise --model-memory, or leave the model out"
            )
        self._served[source.name] = model
        self._metrics.serves(source.name)
        if self._missing_bytes(model.weights_bytes) <= 0:
            model.stay = Stay(model)
            self._keep(model.stay, weights, time.monotonic() - started)
        else:
            log.info("checked %s; it is loaded when it is asked for, in the place of another", _described(model))

    async def _weights(self, stay: Stay, caller: Caller) -> Autoencoder:
        name = stay.model.source.name
        try:
            async with asyncio.timeout(caller.remaining_s):
                await stay.ready.wait()
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"the deadline passed while model {name!r} was being loaded; send the request again, with more time"
            ) from error
        if stay.weights is None:
            raise ModelUnavailable(
                f"model {name!r} cannot be loaded now; the server's log says why. Send the request again later, or "
                "to another model"
            )
        return stay.weights

    def _begin(self, model: ServedModel) -> Stay:
        stay = model.stay = Stay(model)
        task = asyncio.create_task(self._load(stay))
        self._loads.add(task)
        task.add_done_callback(self._loads.discard)
        return stay

    async def _load(self, stay: Stay) -> None:
        model = stay.model
        try:
            # One after the other, in the order in which they were asked for: each knows the room that there is.
            async with self._turn:
                if not await self._make_room(stay):
                    return
                log.info("loading %s from %s", model.source.name, model.source.source)
                started = time.monotonic()
                weights = await self._read(model.source)
                _check_unchanged(model, weights.spec)
                self._keep(stay, weights, time.monotonic() - started)
        except Exception as error:
            log.error("%s cannot be loaded: %s", model.source.name, error, exc_info=not isinstance(error, CodecError))
            self._metrics.load_failed(model.source.name)
            asyncio.get_running_loop().call_later(REST_S, _take_no_more, stay)
        finally:
            stay.ready.set()

    async def _make_room(self, wanted: Stay) -> bool:
        """Evict weights until those wanted fit, and wait for the requests that hold them.

        Returns:
            False: nobody wants them any more, and what was to leave for them stays.
        """
        missing = self._missing_bytes(wanted.model.weights_bytes)
        leaving: list[Stay] = []
        for stay in sorted(self._in_memory, key=lambda stay: stay.holders > 0):
            if missing <= 0:
                break
            missing -= stay.model.weights_bytes
            leaving.append(stay)
            _take_no_more(stay)
        for number, stay in enumerate(leaving):
            while stay.holders and wanted.holders:
                await _first(stay.idle, wanted.idle)
            if not wanted.holders:
                log.info("%s is not loaded: nobody waits for it any more", wanted.model.source.name)
                _take_no_more(wanted)
                for other in leaving[number:]:
                    other.model.stay = other.model.stay or other
                return False
            self._evict(stay)
        return True

    def _missing_bytes(self, wanted_bytes: int) -> float:
        held = sum(stay.model.weights_bytes for stay in self._in_memory)
        return held + wanted_bytes - self._budget_bytes

    def _keep(self, stay: Stay, weights: Autoencoder, seconds: float) -> None:
        stay.weights = weights
        stay.ready.set()
        self._in_memory.append(stay)
        self._metrics.loaded(stay.model.source.name, stay.model.weights_bytes, seconds)
        log.info("loaded %s, in %.1f s", _described(stay.model), seconds)

    def _evict(self, stay: Stay) -> None:
        self._in_memory.remove(stay)
        stay.weights = None
        self._metrics.evicted(stay.model.source.name)
        log.info("evicted %s, %d MiB", stay.model.source.name, _mib(stay.model.weights_bytes))


async def _first(*events: asyncio.Event) -> None:
    """Wait for one of them."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _take_no_more(stay: Stay) -> None:
    """Let the next request for the model begin a load of its own."""
    if stay.model.stay is stay:
        stay.model.stay = None


def _check_unchanged(model: ServedModel, now: AutoencoderSpec) -> None:
    """Refuse a model that is no longer what clients were told of it."""
    changed = [item.name for item in fields(now) if getattr(now, item.name) != getattr(model.spec, item.name)]
    if changed:
        raise CheckpointError(
            f"{model.source.source} changed since the server started (its {', '.join(changed)}; the weights were "
            f"{model.spec.weights_digest[:12]}, are {now.weights_digest[:12]}); put it back, or restart the server"
        )


def _described(model: ServedModel) -> str:
    spec = model.spec
    return (
        f"{model.source.name}: {spec.class_name}, weights {spec.weights_digest[:12]}, {_mib(model.weights_bytes)} MiB, "
        f"{spec.dtype} on {spec.device}"
    )


def _mib(number: float) -> int:
    return math.ceil(number / MIB)
