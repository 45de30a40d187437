# SPDX-License-Identifier: Apache-2.0
"""The bookkeeping of a stream, without a transport: what is read when, what is remembered, what each answer is for."""

from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from latentwire_client import (
    InvalidRequest,
    Latents,
    Limits,
    Retry,
    ServerFault,
    StreamItem,
    Timeout,
    TooLarge,
    Unavailable,
)
from latentwire_client._outbox import Outbox, decode_outbox, encode_outbox
from latentwire_client._settings import Address, Settings


@dataclass
class Answer:
    """A response, as far as the outbox looks at it."""

    id: int
    result: str = ""
    error: status_pb2.Status | None = None

    def WhichOneof(self, name: str) -> str:
        assert name == "outcome"
        return "result" if self.error is None else "error"


class Source:
    """Items that count how often they were asked for."""

    def __init__(self, count: int) -> None:
        self.taken = 0
        self._count = count

    def __iter__(self) -> Iterator[str]:
        for number in range(self._count):
            self.taken += 1
            yield f"item {number}"


def make(number: int, item: Any) -> str:
    return f"{number}: {item}"


def parse(item: Any, result: Any) -> str:
    return f"{item} -> {result}"


def outbox(items: Any, in_flight: int = 3, make: Callable[[int, Any], Any] = make) -> Outbox[str]:
    return Outbox(items, make, parse, in_flight)


def test_nothing_is_read_before_it_is_asked_for() -> None:
    source = Source(5)
    box = outbox(source)
    assert source.taken == 0
    box.fill()
    assert source.taken == 0


def test_items_are_read_one_by_one_up_to_those_in_flight() -> None:
    source = Source(5)
    filling = (box := outbox(source)).fill()
    for number in range(3):
        assert next(filling) == f"{number}: item {number}"
        assert source.taken == number + 1
    assert list(filling) == []
    assert list(box.fill()) == []
    assert source.taken == 3


def test_each_answer_makes_room_for_one_more() -> None:
    source = Source(5)
    box = outbox(source, in_flight=2)
    assert list(box.fill()) == ["0: item 0", "1: item 1"]
    assert box.answer(Answer(1, "a")) == StreamItem(1, "item 1", "item 1 -> a", None)
    assert list(box.fill()) == ["2: item 2"]
    box.answer(Answer(0))
    box.answer(Answer(2))
    assert list(box.fill()) == ["3: item 3", "4: item 4"]
    assert not box.finished
    box.answer(Answer(3))
    assert list(box.fill()) == []
    assert not box.finished
    box.answer(Answer(4))
    assert box.finished


def test_an_outbox_without_items_is_finished_once_it_has_looked() -> None:
    box = outbox([])
    assert not box.finished
    assert list(box.fill()) == []
    assert box.finished


def test_what_is_unanswered_is_kept_oldest_first_for_sending_again() -> None:
    made: list[int] = []

    def counted(number: int, item: Any) -> str:
        made.append(number)
        return make(number, item)

    box = outbox(Source(4), in_flight=4, make=counted)
    requests = list(box.fill())
    box.answer(Answer(1))
    for _ in range(2):
        assert list(box.fill()) == []
        box.begin()
        assert list(box.fill()) == [requests[0], requests[2], requests[3]]
    box.answer(Answer(0))
    box.answer(Answer(3))
    box.answer(Answer(2))
    box.begin()
    assert list(box.fill()) == []
    assert made == [0, 1, 2, 3]  # the same request again: a path is read once


@pytest.mark.parametrize("error", [OSError("no such file"), TypeError("no image"), ValueError("too small")])
def test_an_item_that_makes_no_request_fails_alone_and_takes_no_room(error: Exception) -> None:
    def odd_fail(number: int, item: Any) -> str:
        if number % 2:
            raise error
        return make(number, item)

    box = outbox(Source(6), in_flight=2, make=odd_fail)
    assert list(box.fill()) == ["0: item 0", StreamItem(1, "item 1", None, error), "2: item 2"]
    assert list(box.fill()) == []


def test_a_fault_in_making_a_request_is_not_taken_for_a_bad_item() -> None:
    def fail(number: int, item: Any) -> str:
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        list(outbox(Source(1), make=fail).fill())


def test_an_error_from_the_server_becomes_the_item_s_exception() -> None:
    box = outbox(["image"])
    list(box.fill())
    item = box.answer(Answer(0, error=status_pb2.Status(code=3, message="not an image")))
    assert (item.index, item.source, item.result) == (0, "image", None)
    assert isinstance(item.error, InvalidRequest)
    with pytest.raises(InvalidRequest, match="not an image"):
        item.get()


@pytest.mark.parametrize("code", [0, 42])
def test_an_error_of_a_code_that_nobody_knows_is_that_item_s_own(code: int) -> None:
    box = outbox(["image"])
    list(box.fill())
    assert isinstance(box.answer(Answer(0, error=status_pb2.Status(code=code))).error, ServerFault)
    assert list(box.fill()) == []
    assert box.finished


@pytest.mark.parametrize("error", [ValueError("bad answer"), TypeError("bad answer"), OSError("bad answer")])
def test_an_answer_that_cannot_be_read_fails_its_item_alone(error: Exception) -> None:
    def fail(item: Any, result: Any) -> str:
        raise error

    box = Outbox(["image"], make, fail, 3)
    list(box.fill())
    assert box.answer(Answer(0)) == StreamItem(0, "image", None, error)
    assert list(box.fill()) == []
    assert box.finished


@pytest.mark.parametrize("number", [0, 2, 99])
def test_an_answer_to_nothing_that_was_asked_is_a_fault_of_the_server(number: int) -> None:
    box = outbox(Source(2))
    list(box.fill())
    box.answer(Answer(0))
    with pytest.raises(ServerFault, match=f"answered item {number} of a stream") as caught:
        box.answer(Answer(number))
    assert caught.value.code is grpc.StatusCode.INTERNAL
    box.begin()
    assert list(box.fill()) == ["1: item 1"]


@pytest.mark.parametrize("error", [RuntimeError("broken"), Unavailable(grpc.StatusCode.UNAVAILABLE, "broken")])
def test_a_source_that_raises_is_remembered_and_not_taken_for_exhausted(error: Exception) -> None:
    def source() -> Iterator[str]:
        yield "item"
        raise error

    box = outbox(source())
    filling = box.fill()
    assert next(filling) == "0: item"
    assert not box.source_failed
    with pytest.raises(type(error), match="broken"):
        next(filling)
    assert box.source_failed
    box.answer(Answer(0))
    assert not box.finished


TOO_LARGE = TooLarge(grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max")


@given(count=st.integers(1, 12), in_flight=st.integers(1, 5), data=st.data())
def test_an_error_that_ends_calls_is_attributed_to_the_items_that_cause_it_and_to_no_other(
    count: int, in_flight: int, data: st.DataObject
) -> None:
    faulty = data.draw(st.sets(st.integers(0, count - 1)))
    box = outbox(Source(count), in_flight)
    done: list[StreamItem[str]] = []
    while not box.finished:
        box.begin()
        sent: list[int] = []
        while True:
            sent += [int(request.split(":")[0]) for request in box.fill()]
            assert len(sent) <= in_flight
            if faulty & set(sent):
                failed = box.attribute(TOO_LARGE)
                done += [] if failed is None else [failed]
                break
            if not sent:
                break
            number = data.draw(st.sampled_from(sent))
            sent.remove(number)
            done.append(box.answer(Answer(number, str(number))))
    assert sorted(item.index for item in done) == list(range(count))
    assert {item.index for item in done if item.error is TOO_LARGE} == faulty


def test_an_error_with_nothing_sent_is_the_stream_s_own() -> None:
    box = outbox(Source(2))
    with pytest.raises(TooLarge):
        box.attribute(TOO_LARGE)


def test_an_error_that_the_source_may_have_raised_is_attributed_to_no_item() -> None:
    def source() -> Iterator[str]:
        yield "item"
        raise TOO_LARGE  # such as a stream of another client, whose answers are the items of this one

    box = outbox(source())
    with pytest.raises(TooLarge):
        list(box.fill())
    with pytest.raises(TooLarge) as caught:
        box.attribute(TOO_LARGE)
    assert caught.value is TOO_LARGE
    box.begin()
    assert list(box.fill()) == ["0: item"]  # it still waits for its answer


def test_after_an_error_is_attributed_the_stream_is_as_fast_as_before() -> None:
    box = outbox(Source(12), in_flight=4)
    assert len(list(box.fill())) == 4
    assert box.attribute(TOO_LARGE) is None  # one of items 0 to 3
    box.begin()
    assert list(box.fill()) == ["0: item 0"]
    failed = box.attribute(TOO_LARGE)
    assert failed is not None
    assert failed.index == 0
    box.begin()
    for number in (1, 2):
        assert list(box.fill()) == [f"{number}: item {number}"]
        box.answer(Answer(number))
    assert list(box.fill()) == ["3: item 3"]
    box.answer(Answer(3))
    assert len(list(box.fill())) == 4  # every suspected item is done


def test_a_result_that_is_false_is_a_result() -> None:
    assert StreamItem(0, "image", 0, None).get() == 0
    assert StreamItem(0, "image", "", None).get() == ""


@given(count=st.integers(0, 20), in_flight=st.integers(1, 5), data=st.data())
def test_in_any_order_of_answers_each_item_is_answered_once_and_the_bound_holds(
    count: int, in_flight: int, data: st.DataObject
) -> None:
    source = Source(count)
    box = outbox(source, in_flight)
    done: list[StreamItem[str]] = []
    waiting: list[int] = []
    while not box.finished:
        waiting += [int(request.split(":")[0]) for request in box.fill()]
        assert len(waiting) <= in_flight
        assert source.taken <= len(done) + in_flight
        if waiting:
            number = data.draw(st.sampled_from(waiting))
            waiting.remove(number)
            done.append(box.answer(Answer(number, str(number))))
    assert sorted(item.index for item in done) == list(range(count))
    for item in done:
        assert item.get() == f"item {item.index} -> {item.index}"


def test_an_item_stays_as_it_is() -> None:
    with pytest.raises(FrozenInstanceError):
        StreamItem(0, "image", "result", None).index = 1  # type: ignore[misc]


def test_a_stream_that_broke_off_says_how_many_answers_came() -> None:
    box = outbox(Source(2))
    with pytest.raises(RuntimeError, match="broke off after 0 answers"):
        box.check_finished()
    list(box.fill())
    box.answer(Answer(0))
    with pytest.raises(RuntimeError, match="broke off after 1 answers"):
        box.check_finished()
    box.answer(Answer(1))
    assert list(box.fill()) == []
    box.check_finished()


# Requests of the server's streams

SETTINGS = Settings(
    Address("localhost:1", None, False), "default", Timeout(), Retry(), Limits(in_flight=4), on_execution=None
)
IMAGES = [np.zeros((8, 8, 3), np.uint8)] * 3


@pytest.mark.parametrize(("model", "asked"), [("", "default"), ("other", "other")])
def test_latents_are_decoded_by_the_named_model_or_the_clients(model: str, asked: str) -> None:
    latents = Latents(np.zeros((1, 4, 2, 2), np.float32))
    (sent,) = decode_outbox([latents], model, SETTINGS).fill()
    assert sent.request.model == asked


def test_each_image_of_a_stream_travels_with_its_own_seed() -> None:
    box = encode_outbox(IMAGES, {"kind": "sample", "seeds": [5, 6, 7]}, SETTINGS)
    assert [list(sent.request.latents.seeds) for sent in box.fill()] == [[5], [6], [7]]


def test_a_stream_without_seeds_sends_none() -> None:
    assert [list(sent.request.latents.seeds) for sent in encode_outbox(IMAGES, {}, SETTINGS).fill()] == [[], [], []]


def test_seeds_of_another_number_than_the_images_are_refused_where_the_number_is_known() -> None:
    with pytest.raises(ValueError, match="there are 2 seeds for 3 images; give one for each"):
        encode_outbox(IMAGES, {"kind": "sample", "seeds": [5, 6]}, SETTINGS)
    box = encode_outbox(iter(IMAGES[:1]), {"kind": "sample", "seeds": [5, 6]}, SETTINGS)
    assert [list(sent.request.latents.seeds) for sent in box.fill()] == [[5]]


@pytest.mark.parametrize("item", ["a.png", b"png", bytearray(b"png"), Path("a.png")])
def test_one_item_in_place_of_many_is_refused(item: Any) -> None:
    with pytest.raises(TypeError, match=f"not one {type(item).__name__}; use encode or compress"):
        encode_outbox(item, {}, SETTINGS)
    with pytest.raises(TypeError, match=f"not one {type(item).__name__}; use decode"):
        decode_outbox(item, "", SETTINGS)
