# SPDX-License-Identifier: Apache-2.0
"""Image files <-> pixels, in processes that are killed when nobody waits for them any more.

Small images and large ones have processes of their own, so that a small image waits for no large one. A small image
whose file takes long begins anew among the large ones. Each client has its turn (turns.py).
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from latentwire_codec.images.files import ImageLimits
from latentwire_codec.images.geometry import Pixels
from latentwire_core.errors import ImageError
from latentwire_core.formats import ImageFormat
from latentwire_server.engine.coding.clock import Clock
from latentwire_server.engine.coding.process import CodingProcess, Crashed
from latentwire_server.engine.coding.turns import Turns
from latentwire_server.engine.jobs import Caller, FileOutput
from latentwire_server.errors import ServerError

T = TypeVar("T")

SMALL_PIXELS = 1024 * 1024
SMALL_BYTES = 8 << 20
SMALL_S = 1.0
"""The longest time for which an image counts as small. Undisturbed, the worst files of `SMALL_PIXELS` take 0.2 s."""
SMALL_NICENESS = 0
"""The model waits for small images, and they are done soon."""
LARGE_NICENESS = 10
"""The event loop, the model and small images come first: a large image takes seconds anyway."""
AVIF_WEIGHT = 4
"""Writing AVIF takes about four times as long as the other formats."""
PROCESS_BYTES = 1 << 30
CORE_BYTES = 128 << 20
PIXEL_BYTES = 128
"""The address space of a process: for itself, for a thread of an AVIF encoder on each core, and for each pixel of the
largest image. AVIF takes most, 65 bytes a pixel."""


@dataclass(frozen=True)
class Reading:
    """An image file that is to be read.

    Attributes:
        file: its bytes.
        limits: the largest image that is decoded.
        target_size: (height, width) to scale and crop to; None: the file's own size.
        admit: takes the width and height of the header, and tells whether memory for the pixels is there; it may
            refuse the image by an exception. Asked again where the file has to begin anew.
    """

    file: bytes
    limits: ImageLimits
    target_size: tuple[int, int] | None
    admit: Callable[[int, int], bool]


class _Large(Exception):
    """The header announces a large image."""


class _NoAnswer(Exception):
    """The process ended before it answered anything: it may have been killed, by the system for one, while idle."""


@dataclass(frozen=True)
class _Lane:
    """The processes for images of one kind: those that nobody uses, started or starting, and the turns at them."""

    turns: Turns
    niceness: int
    idle: list["asyncio.Future[CodingProcess]"] = field(default_factory=list)


class Coders:
    """The coding processes of one server; for one event loop. They are started when they are needed.

    Args:
        workers: how many images of each kind, small and large, are coded at a time, at least 1; and one small one
            more, which no client alone can have.
        most_pixels: the pixels of the largest image.
    """

    def __init__(self, workers: int, most_pixels: int) -> None:
        self._small = _Lane(Turns(workers + 1), SMALL_NICENESS)
        self._large = _Lane(Turns(workers), LARGE_NICENESS)
        self._memory_bytes = PROCESS_BYTES + CORE_BYTES * (os.cpu_count() or 1) + PIXEL_BYTES * most_pixels
        self._ending: set[asyncio.Task[int]] = set()
        self._busy: set[CodingProcess] = set()
        self._closed = False

    async def start(self) -> None:
        """Start the first process.

        Raises:
            ServerError: it cannot be started.
        """
        async with self._process(self._small):
            pass

    async def close(self) -> None:
        """Kill every process, whatever it is at."""
        self._closed = True
        for lane in (self._small, self._large):
            for starting in lane.idle:
                starting.cancel()
                with suppress(asyncio.CancelledError, ServerError):
                    self._kill(await starting)
            lane.idle.clear()
        for process in [*self._busy]:
            self._kill(process)
        await asyncio.gather(*self._ending)

    async def read(self, reading: Reading, caller: Caller, clock: Clock) -> Pixels | None:
        """Map an image file to its pixels, uint8 (H,W,3); None where `admit` said no: ask again with memory.

        Raises:
            ImageError: the file cannot be read, or crashed its decoder.
            DeadlineExceeded: the caller's deadline passed.
        """

        async def read(process: CodingProcess, largest: float) -> Pixels | None:
            limits = reading.limits
            head = {"do": "open", "max_side": limits.max_side, "max_pixels": limits.max_pixels}
            answer, _ = await process.ask(head, reading.file)
            width, height = answer["size"]
            if width * height > largest:
                raise _Large
            if not reading.admit(width, height):
                return None
            answer, pixels = await process.ask({"do": "read", "target": reading.target_size})
            shaped: Pixels = pixels.reshape(answer["shape"])
            return shaped

        async with caller.until_deadline("the image file was waiting for its turn or being read"):
            try:
                if len(reading.file) <= SMALL_BYTES:
                    with suppress(_Large, TimeoutError):
                        return await self._use(
                            self._small, caller, clock, lambda process: read(process, SMALL_PIXELS), SMALL_S
                        )
                return await self._use(self._large, caller, clock, lambda process: read(process, float("inf")))
            except Crashed as error:
                raise ImageError(
                    f"the image file of {len(reading.file)} bytes cannot be read: it crashed its decoder, whose "
                    f"process {error.end}; save the image again, as 8-bit PNG"
                ) from error

    async def write(
        self, pixels: Pixels, size: tuple[int, int], output: FileOutput, caller: Caller, clock: Clock
    ) -> bytes:
        """Map pixels, uint8 (H,W,3), to the file of their top left part of a size (height, width).

        Raises:
            ImageError: the image cannot be written in that format.
            DeadlineExceeded: the caller's deadline passed.
        """
        head = {
            "do": "write",
            "shape": pixels.shape,
            "size": size,
            "format": output.image_format.value,
            "quality": output.quality,
        }

        async def write(process: CodingProcess) -> bytes:
            _, file = await process.ask(head, pixels)
            written: bytes = file.tobytes()
            return written

        weight = AVIF_WEIGHT if output.image_format is ImageFormat.AVIF else 1
        async with caller.until_deadline("the image file was waiting for its turn or being written"):
            if weight * pixels.shape[0] * pixels.shape[1] <= SMALL_PIXELS:
                with suppress(TimeoutError):
                    return await self._use(self._small, caller, clock, write, SMALL_S)
            return await self._use(self._large, caller, clock, write)

    async def _use(
        self,
        lane: _Lane,
        caller: Caller,
        clock: Clock,
        work: Callable[[CodingProcess], Awaitable[T]],
        limit_s: float | None = None,
    ) -> T:
        """Let a process do work; raises TimeoutError where the work takes longer than the limit."""
        with clock.waiting():
            await lane.turns.enter(caller.client)
        try:
            with clock.working():
                with suppress(_NoAnswer):
                    return await self._attempt(lane, work, limit_s)
                return await self._attempt(lane, work, limit_s, fresh=True)
        finally:
            lane.turns.leave(caller.client)

    async def _attempt(
        self,
        lane: _Lane,
        work: Callable[[CodingProcess], Awaitable[T]],
        limit_s: float | None,
        fresh: bool = False,
    ) -> T:
        """Let a process, a `fresh` one where asked, do work; raises _NoAnswer where another one may fare better."""
        async with self._process(lane, fresh) as process:
            try:
                async with asyncio.timeout(limit_s):
                    return await work(process)
            except Crashed as error:
                if fresh or process.holds_image or self._closed:
                    raise
                raise _NoAnswer from error

    @asynccontextmanager
    async def _process(self, lane: _Lane, fresh: bool = False) -> AsyncIterator[CodingProcess]:
        """Give an idle process, or a new one; kill the process where the context ends in the middle of a request."""
        process = await self._next(lane, fresh)
        self._busy.add(process)
        try:
            yield process
            if process.holds_image:
                with suppress(Crashed):  # the work is done
                    await process.ask({"do": "drop"})
        finally:
            self._busy.discard(process)
            if process.is_ready and not self._closed:
                idle: asyncio.Future[CodingProcess] = asyncio.get_running_loop().create_future()
                idle.set_result(process)
                lane.idle.append(idle)
            else:
                self._kill(process)

    async def _next(self, lane: _Lane, fresh: bool) -> CodingProcess:
        while True:
            if lane.idle and not fresh:
                starting = lane.idle.pop()
            else:
                starting = asyncio.create_task(CodingProcess.start(self._memory_bytes, lane.niceness))
            try:
                process = await asyncio.shield(starting)
            except asyncio.CancelledError:
                if self._closed:
                    starting.cancel()
                else:
                    lane.idle.append(starting)  # for the next one
                raise
            if process.is_ready:
                return process
            self._kill(process)

    def _kill(self, process: CodingProcess) -> None:
        ending = process.kill()
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
