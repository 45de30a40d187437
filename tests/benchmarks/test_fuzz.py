# SPDX-License-Identifier: Apache-2.0
"""A short run of the fuzzer, and that it would notice a decoder that is wrong."""

import math

import pytest

from benchmarks import fuzz
from benchmarks.fuzz import Failure, Mutator, Parts, Report
from latentwire_core.errors import BitstreamError


def test_damaged_payloads_are_refused_or_decoded() -> None:
    report = Report()
    fuzz.fuzz(Mutator(seed=1), 400, report, most_seconds=math.inf)
    assert report.outcomes.total() == 400
    # The damage reaches every kind of error, and what lies behind the checksums.
    names = {error.__name__ for error in BitstreamError.__subclasses__()}
    assert set(report.outcomes) == names | {"latents"}
    assert report.outcomes["Malformed"] > report.outcomes["ChecksumMismatch"]


def test_the_same_seed_damages_in_the_same_way() -> None:
    first, second, other = Mutator(7), Mutator(7), Mutator(8)
    payloads = [first.payload() for _ in range(20)]
    assert [second.payload() for _ in range(20)] == payloads
    assert [other.payload() for _ in range(20)] != payloads


def test_a_payload_is_put_together_as_it_was() -> None:
    for payload in Mutator(0).corpus:
        assert Parts.of(payload).payload() == payload


@pytest.mark.parametrize("error", [IndexError("list"), OverflowError("int"), MemoryError()])
def test_another_exception_is_a_failure_that_keeps_its_payload(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(payload: bytes, max_values: int) -> None:
        raise error

    monkeypatch.setattr(fuzz, "decompress_latents", wrong)
    with pytest.raises(Failure, match=type(error).__name__) as caught:
        fuzz.attempt(b"payload")
    assert caught.value.payload == b"payload"


def test_a_try_that_takes_too_much_memory_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "attempt", lambda payload: str(len(bytearray((fuzz.MOST_MIB + 1) << 20))))
    with pytest.raises(Failure, match="MiB"):
        fuzz.fuzz(Mutator(0), 1, Report())
