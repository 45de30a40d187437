# SPDX-License-Identifier: Apache-2.0
"""A query is read strictly: a value of the wrong kind is refused with its name and the value."""

import math
from contextlib import suppress
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire_server.doors.http.query import Query
from latentwire_server.errors import InvalidRequest

unhurried = settings(deadline=None)  # a busy machine is no failure


def test_of_a_parameter_sent_twice_the_last_counts_and_a_list_keeps_its_order() -> None:
    query = Query("shape=1&shape=4&dtype=float32&shape=8&dtype=float16&empty=")
    assert query.wholes("shape") == [1, 4, 8]
    assert query.known("dtype", {"float16": 16, "float32": 32}) == 16
    assert "empty" in query
    assert "missing" not in query


def test_what_is_not_sent_is_none_false_or_the_default() -> None:
    query = Query("")
    assert query.number("x") is None
    assert query.whole("x") is None
    assert query.wholes("x") == []
    assert not query.flag("x")
    assert query.known("x", {"a": 1}, "a") == 1
    with pytest.raises(InvalidRequest, match="there is no x; send one of a, b"):
        query.known("x", {"a": 1, "b": 2})


@pytest.mark.parametrize("text", ["True", "true", "TRUE"])
def test_switches_are_read_in_any_case(text: str) -> None:
    assert Query(f"x={text}").flag("x")
    assert not Query("x=False").flag("x")


@unhurried
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_comes_back_as_python_wrote_it(number: float) -> None:
    assert Query(urlencode({"x": number})).number("x") == number


@unhurried
@given(st.text())
def test_any_text_is_a_finite_number_or_refused(text: str) -> None:
    query = Query(urlencode({"x": text}))
    with suppress(InvalidRequest):
        number = query.number("x")
        assert number is not None
        assert math.isfinite(number)


@unhurried
@given(st.text())
def test_any_text_is_a_whole_number_or_refused(text: str) -> None:
    query = Query(urlencode({"x": text}))
    with suppress(InvalidRequest):
        assert query.whole("x") == int(text)


def test_a_refusal_names_the_parameter() -> None:
    for read in (Query.number, Query.whole, Query.flag):
        with pytest.raises(InvalidRequest, match="x is many") as caught:
            read(Query("x=many"), "x")
        assert caught.value.field == "x"


@pytest.mark.parametrize("text", ["x=-1", "x=1_0", "x=%201", "x=1.0", "x=", "x=" + "9" * 5000, "x=%D9%A1"])
def test_only_digits_are_a_whole_number(text: str) -> None:
    with pytest.raises(InvalidRequest, match="whole number"):
        Query(text).whole("x")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "", "0x1"])
def test_only_finite_numbers_are_numbers(text: str) -> None:
    with pytest.raises(InvalidRequest, match="finite"):
        Query(f"x={text}").number("x")


def test_a_word_that_is_not_in_the_table_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidRequest, match="x is c; accepted here: a, b"):
        Query("x=c").known("x", {"a": 1, "b": 2})
    with pytest.raises(InvalidRequest, match="x is 1; it must be true or false"):
        Query("x=1").flag("x")
