# SPDX-License-Identifier: Apache-2.0
"""The bookkeeping of a stream: items -> numbered requests, responses -> items; what is unanswered is remembered.

Without a transport, so that the sync and the asyncio client share it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc

from latentwire_client.errors import LatentwireError, ServerFault, from_status

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
        answers: how many items have had an answer.
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
        # Of the pending: to be sent again, oldest first.
        self._unsent: deque[int] = deque()
        # Of the pending: one of these makes calls fail.
        self._suspects: set[int] = set()
        self._exhausted = False
        self.source_failed = False
        self.answers = 0

    @property
    def finished(self) -> bool:
        """Whether every item has had its answer."""
        return self._exhausted and not self._pending

    def check_finished(self) -> None:
        """Check at the end of the stream that it is one.

        Raises:
            RuntimeError: items have no answer, or were not read.
        """
        if not self.finished:
            raise RuntimeError(
                f"this stream broke off after {self.answers} answers and goes no further; make another of the rest"
            )

    def begin(self) -> None:
        """Begin a call: what was made and has no answer is to be sent in it, oldest first."""
        self._unsent = deque(self._pending)

    def fill(self) -> Iterator[Any]:
        """Read items while there is room: yield a request for each, or the failure of one that makes none."""
        while self._sent < (1 if self._suspects else self._in_flight):
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
        """Map a response to its item, which is then done.

        Raises:
            ServerFault: no item of that number waits for an answer.
        """
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

    def blame(self, error: LatentwireError) -> StreamItem[T] | None:
        """Map an error that ended the call, but is of one item, to that item, which is then done.

        Returns:
            None where several are sent: in the next calls they go one by one, and the error comes again.

        Raises:
            LatentwireError: the error, where none is sent, or where it may be of the source.
        """
        sent = self._pending.keys() - set(self._unsent)
        if self.source_failed or not sent:
            raise error
        if len(sent) > 1:
            self._suspects |= sent
            return None
        (number,) = sent
        return StreamItem(number, self._take(number), None, error)

    @property
    def _sent(self) -> int:
        return len(self._pending) - len(self._unsent)

    def _take(self, number: int) -> Any:
        item, _ = self._pending.pop(number)
        self._suspects.discard(number)
        return item
