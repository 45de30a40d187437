# SPDX-License-Identifier: Apache-2.0
"""A short run of damaged payloads, and proof that a wrong decoder is noticed."""

import math

import pytest

from latentwire_core.errors import BitstreamError
from tests.fuzz import lat
from tests.fuzz.lat import Lat, Parts
from tests.fuzz.runner import Report, fuzz


def test_damaged_payloads_are_refused_or_decoded() -> None:
    report = Report()
    with Lat(seed=1, most_seconds=math.inf) as target:
        fuzz(target, 400, report)
    assert report.failures == []
    assert report.outcomes.total() == 400
    # The damage reaches every kind of error, and the code behind the checksums.
    names = {error.__name__ for error in BitstreamError.__subclasses__()}
    assert set(report.outcomes) == names | {"latents"}
    assert report.outcomes["Malformed"] > report.outcomes["ChecksumMismatch"]


def test_the_same_seed_damages_in_the_same_way() -> None:
    first, second, other = Lat(7), Lat(7), Lat(8)
    payloads = [first.payload() for _ in range(20)]
    assert [second.payload() for _ in range(20)] == payloads
    assert [other.payload() for _ in range(20)] != payloads


def test_a_payload_is_put_together_as_it_was() -> None:
    for payload in Lat(0).corpus:
        assert Parts.of(payload).payload() == payload


@pytest.mark.parametrize("error", [IndexError("list"), OverflowError("int"), MemoryError()])
def test_another_exception_is_no_outcome(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def decompress(payload: bytes, max_values: int) -> None:
        raise error

    monkeypatch.setattr(lat, "decompress_latents", decompress)
    with pytest.raises(type(error)):
        lat.decode(b"payload")
