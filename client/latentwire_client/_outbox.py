# SPDX-License-Identifier: Apache-2.0
"""The bookkeeping of a stream: items -> numbered requests, responses -> items; what is unanswered is remembered.

Without a transport, so that the sync and the asyncio client share it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc

from latentwire_client.errors import ServerFault, from_status

T = TypeVar("T")


@dataclass(frozen=True)
class StreamItem(Generic[T]):
    """What became of one item.

    Attributes:
        index: its place in the input, from 0.
        source: the item itself.
        result: the answer, or None where there is an error.
        error: why there is no answer, or None.
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
    """Items on their way.

    Args:
        items: read one by one, as room comes free.
        make: (number, item) -> request; an OSError, TypeError or ValueError fails that item alone.
        parse: (item, response) -> result; likewise.
        in_flight: items without an answer.

    Attributes:
        source_failed: whether `items` raised. It must not be read again: a generator would seem to be at its end.
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
        self._pending: dict[int, tuple[Any, Any]] = {}
        self._exhausted = False
        self.source_failed = False

    @property
    def finished(self) -> bool:
        """Whether every item has had its answer."""
        return self._exhausted and not self._pending

    def unanswered(self) -> list[Any]:
        """Return the requests that were made and have no answer, oldest first."""
        return [request for _, request in self._pending.values()]

    def fill(self) -> Iterator[Any]:
        """Read items while there is room: yield a request for each, or the failure of one that makes none."""
        while not self._exhausted and len(self._pending) < self._in_flight:
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
        """Map a response to its item, which is then done.

        Raises:
            ServerFault: no item of that number waits for an answer.
        """
        if response.id not in self._pending:
            problem = f"the server answered item {response.id} of a stream, which was not waiting for an answer"
            raise ServerFault(grpc.StatusCode.INTERNAL, problem)
        item, _ = self._pending.pop(response.id)
        if response.WhichOneof("outcome") == "error":
            return StreamItem(response.id, item, None, from_status(response.error))
        try:
            return StreamItem(response.id, item, self._parse(item, response.result), None)
        except (OSError, TypeError, ValueError) as error:
            return StreamItem(response.id, item, None, error)
