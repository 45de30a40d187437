# SPDX-License-Identifier: Apache-2.0
"""A short run of the fuzzer, and proof that it notices a wrong decoder."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from latentwire_core.errors import BitstreamError
from tests.fuzz import lat, runner
from tests.fuzz.lat import Lat, Parts
from tests.fuzz.runner import Failure, Report, fuzz


def test_damaged_payloads_are_refused_or_decoded() -> None:
    report = Report()
    fuzz(Lat(seed=1), 400, report, most_seconds=math.inf)
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


def failing(error: Exception) -> Callable[[bytes, int], None]:
    def decompress(payload: bytes, max_values: int) -> None:
        raise error

    return decompress


@pytest.mark.parametrize("error", [IndexError("list"), OverflowError("int"), MemoryError()])
def test_another_exception_is_a_failure_that_keeps_its_payload(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lat, "decompress_latents", failing(error))
    with pytest.raises(Failure, match=type(error).__name__) as caught:
        Lat(0).attempt(b"payload")
    assert caught.value.payload == b"payload"


def test_a_try_that_takes_too_much_memory_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lat, "attempt", lambda *_: str(len(bytearray((runner.MOST_MIB + 1) << 20))))
    with pytest.raises(Failure, match="MiB"):
        fuzz(Lat(0), 1, Report())


def test_a_run_prints_its_counts(capsys: pytest.CaptureFixture[str]) -> None:
    runner.run(Lat, "", ["--minutes", "0.001"])
    assert "damaged inputs for lat, seed 0: all refused or decoded" in " ".join(capsys.readouterr().out.split())


def test_a_run_keeps_the_input_of_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lat, "decompress_latents", failing(IndexError("list")))
    with pytest.raises(SystemExit, match=r"after 0 inputs: IndexError: list; the input is in fuzz-failure\.lat"):
        runner.run(Lat, "", [])
    assert (tmp_path / "fuzz-failure.lat").read_bytes() == Lat(0).payload()
