# SPDX-License-Identifier: Apache-2.0
"""The bookkeeping of a stream: items -> numbered requests, responses -> items; it keeps the unanswered requests.

Without a transport, so that the sync and the asyncio client share it.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from PIL import Image

from latentwire_client import _convert
from latentwire_client._images import ImageInput
from latentwire_client._settings import Settings
from latentwire_client.config import CompressOptions, EncodeOptions
from latentwire_client.errors import LatentwireError, ServerFault, from_status
from latentwire_core.latents import Latents
from latentwire_proto.v1 import latent_codec_pb2 as pb

T = TypeVar("T")


@dataclass(frozen=True)
class StreamItem(Generic[T]):
    """What became of one item.

        for item in client.encode_stream(paths):
            if item.error is None:
                save(item.source, item.result)

    Attributes:
        index: the item's place in the input, from 0.
        source: the item itself.
        result: the answer; None where there is an error.
        error: why there is no answer; None where there is one.
    """

    index: int
    source: Any
    result: T | None
    error: Exception | None

    def get(self) -> T:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.result is not None  # one of the two is always there
        return self.result


class Outbox(Generic[T]):
    """The items of a stream, on their way.

    Args:
        items: read one by one, as room comes free.
        make: maps (number, item) to a request; an OSError, TypeError or ValueError fails that item alone.
        parse: maps (item, response) to a result; an OSError, TypeError or ValueError fails that item alone.
        in_flight: the most items that are sent and have no answer.

    Attributes:
        source_failed: whether `items` raised. It must not be read again: a generator would seem to be at its end.
        answers: the number of items that have had an answer.
    """

    def __init__(
        self,
        items: Iterable[Any],
        make: Callable[[int, Any], Any],
        parse: Callable[[Any, Any], T],
        in_flight: int,
    ) -> None:
        self._items = enumerate(items)
        self._make = make
        self._parse = parse
        self._in_flight = in_flight
        # number -> (item, request) of each item without an answer
        self._pending: dict[int, tuple[Any, Any]] = {}
        # pending items that the present call has yet to send, oldest first
        self._unsent: deque[int] = deque()
        # pending items that were sent in a call that failed by one of them; while there are any, items go singly
        self._suspected: set[int] = set()
        self._exhausted = False
        self.source_failed = False
        self.answers = 0

    @property
    def finished(self) -> bool:
        """Whether every item has had its answer."""
        return self._exhausted and not self._pending

    def check_finished(self) -> None:
        """Raise RuntimeError where the stream ends with items that have no answer, or were not read."""
        if not self.finished:
            raise RuntimeError(
                f"this stream broke off after {self.answers} answers and goes no further; make another for the other "
                "items"
            )

    def begin(self) -> None:
        """Begin a call: each pending item is to be sent in it, oldest first."""
        self._unsent = deque(self._pending)

    def fill(self) -> Iterator[Any]:
        """Read items while there is room: yield the request of each, or the failure of an item that makes none."""
        while self._sent < (1 if self._suspected else self._in_flight):
            if self._unsent:
                yield self._pending[self._unsent.popleft()][1]
                continue
            if self._exhausted:
                return
            try:
                number, item = next(self._items)
            except StopIteration:
                self._exhausted = True
                return
            except BaseException:
                self.source_failed = True
                raise
            try:
                request = self._make(number, item)
            except (OSError, TypeError, ValueError) as error:
                yield StreamItem(number, item, None, error)
            else:
                self._pending[number] = (item, request)
                yield request

    def answer(self, response: Any) -> StreamItem[T]:
        """Map a response to its item, which is then done; raise ServerFault where no such item waits for an answer."""
        if response.id not in self._pending:
            problem = f"the server answered item {response.id} of a stream, which was not waiting for an answer"
            raise ServerFault(grpc.StatusCode.INTERNAL, problem)
        item = self._take(response.id)
        self.answers += 1
        if response.WhichOneof("outcome") == "error":
            return StreamItem(response.id, item, None, from_status(response.error))
        try:
            return StreamItem(response.id, item, self._parse(item, response.result), None)
        except (OSError, TypeError, ValueError) as error:
            return StreamItem(response.id, item, None, error)

    def attribute(self, error: LatentwireError) -> StreamItem[T] | None:
        """Attribute an error that ended the call to the item that caused it, which is then done.

        Returns:
            None where several items were sent, and any of them may be the cause: the next calls send these items one
            by one, so that the error comes again for its cause alone.

        Raises:
            LatentwireError: the error itself, where no item was sent, or where `items` may have raised it.
        """
        sent = self._pending.keys() - set(self._unsent)
        if self.source_failed or not sent:
            raise error
        if len(sent) > 1:
            self._suspected |= sent
            return None
        (number,) = sent
        return StreamItem(number, self._take(number), None, error)

    @property
    def _sent(self) -> int:
        return len(self._pending) - len(self._unsent)

    def _take(self, number: int) -> Any:
        item, _ = self._pending.pop(number)
        self._suspected.discard(number)
        return item


def encode_outbox(images: Iterable[ImageInput], options: EncodeOptions, settings: Settings) -> Outbox[Latents]:
    """Map images to the bookkeeping of an EncodeStream; raise as `to_encode_request`."""
    common = _convert.to_encode_request(options, settings.model)
    seeds = tuple(common.latents.seeds)
    common.latents.ClearField("seeds")
    return _encode_outbox(images, common, seeds, lambda response: _convert.from_latents(response.latents), settings)


def compress_outbox(images: Iterable[ImageInput], options: CompressOptions, settings: Settings) -> Outbox[bytes]:
    """Map images to the bookkeeping of an EncodeStream of payloads; raise as `to_compress_request`."""
    common = _convert.to_compress_request(options, settings.model)
    return _encode_outbox(images, common, (), lambda response: _convert.from_payloads(response.lat), settings)


def decode_outbox(latents: Iterable[Latents | bytes], model: str, settings: Settings) -> Outbox[Image.Image]:
    """Map the latents of single images, or their payloads, to the bookkeeping of a DecodeStream."""
    _refuse_one(latents, "decode")

    def make(number: int, item: Latents | bytes) -> pb.DecodeStreamRequest:
        request = _convert.to_decode_request(item, _convert.PIXELS, model or settings.model)
        return pb.DecodeStreamRequest(id=number, request=request, timeout_ns=settings.timeout.stream_item_ns)

    def parse(item: Latents | bytes, response: pb.DecodeResponse) -> Image.Image:
        settings.report(response)
        return _convert.single(_convert.from_image_tensor(response.image_tensor), item)

    return Outbox(latents, make, parse, settings.limits.in_flight)


def _encode_outbox(
    images: Iterable[ImageInput],
    common: pb.EncodeRequest,
    seeds: Sequence[int],
    from_response: Callable[[pb.EncodeResponse], T],
    settings: Settings,
) -> Outbox[T]:
    _refuse_one(images, "encode or compress")
    if seeds and isinstance(images, Sized) and len(images) != len(seeds):
        raise ValueError(f"there are {len(seeds)} seeds for {len(images)} images; give one for each")

    def make(number: int, image: ImageInput) -> pb.EncodeStreamRequest:
        request = _convert.with_image(common, image)
        if seeds:
            request.latents.seeds.extend(seeds[number : number + 1])
        return pb.EncodeStreamRequest(id=number, request=request, timeout_ns=settings.timeout.stream_item_ns)

    def parse(_: ImageInput, response: pb.EncodeResponse) -> T:
        settings.report(response)
        return from_response(response)

    return Outbox(images, make, parse, settings.limits.in_flight)


def _refuse_one(items: object, method: str) -> None:
    """Refuse a single item that can be iterated over, such as the letters of a path."""
    if isinstance(items, str | bytes | bytearray | os.PathLike):
        raise TypeError(f"a stream takes many items, not one {type(items).__name__}; use {method}, or put it in a list")
