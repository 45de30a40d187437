# SPDX-License-Identifier: Apache-2.0
"""Short runs of the fuzzers, and proof that they notice crashes, faults, and too much time or memory."""

import os
import time
from pathlib import Path
from random import Random

import pytest

from latentwire_codec.images.files import read_image
from latentwire_core.errors import ImageError
from tests.fuzz import images, runner
from tests.fuzz.apart import Apart
from tests.fuzz.doors import Doors
from tests.fuzz.image_files import corpus, picture
from tests.fuzz.image_parts import LAYOUTS
from tests.fuzz.images import Images
from tests.fuzz.messages import changed, fields, joined
from tests.fuzz.rpcs import Rpcs, requests
from tests.fuzz.runner import Attempt, Failure, Report, fuzz
from tests.waiting import until

READ = [name for name in corpus() if name not in {"ICC", "EXIF"}]


# Image files


def test_damaged_images_are_refused_or_read() -> None:
    report = Report()
    with Images(1, timed=False) as target:
        fuzz(target, 400, report)
    assert report.failures == []
    assert report.outcomes.total() == 400
    assert set(report.outcomes) == {"pixels", "header refused", "pixels refused"}
    assert min(report.outcomes.values()) > 20


def test_the_same_seed_damages_in_the_same_way() -> None:
    first, second, other = Images(7), Images(7), Images(8)
    payloads = [first.payload() for _ in range(20)]
    assert [second.payload() for _ in range(20)] == payloads
    assert [other.payload() for _ in range(20)] != payloads


@pytest.mark.parametrize("name", READ)
def test_sound_files_are_read_after_they_were_taken_apart_and_put_together(name: str) -> None:
    read = 0
    for file in corpus()[name]:
        layout = LAYOUTS[name]
        again = layout.join(layout.split(file), file)
        try:
            pixels = read_image(file)
        except ImageError:
            assert name == "PPM"  # as text, of 16 bits or of floats
            continue
        assert (read_image(again) == pixels).all()
        read += 1
    assert read >= 4


def test_a_fault_of_the_reader_is_told_from_a_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("latentwire_core.colour.srgb._split_alpha", stumble)
    with pytest.raises(MemoryError):
        images.read(corpus()["PNG"][1])
    assert images.read(corpus()["PNG"][1][:-60]) == ("pixels refused", picture().width * picture().height / 1e6)


# Processes and bounds


def obey(payload: bytes) -> tuple[str, float]:
    """Do in a process what the input says."""
    match payload.decode():
        case "crash":
            os.abort()
        case "raise":
            raise IndexError("list")
        case "spend":
            started = time.process_time()
            while time.process_time() < started + 0.1:
                pass
        case "allocate":
            return str(len(b"x" * (64 << 20))), 1.0
    return "done", 1.0


def test_a_crash_an_exception_and_too_much_time_or_memory_are_failures_and_the_next_input_is_tried() -> None:
    apart = Apart(obey, warm_up=b"")
    try:
        for payload, problem in [
            (b"crash", "ended with SIGABRT"),
            (b"raise", "IndexError: list"),
            (b"spend", "done after 0.1"),
            (b"allocate", r"with 6\d MiB"),
        ]:
            with pytest.raises(Failure, match=problem):
                apart.attempt(payload, lambda size: (0.05 if payload == b"spend" else 60, 16))  # noqa: B023
        assert apart.attempt(b"", lambda size: (60 * size, 16 * size)).outcomes == ("done",)
    finally:
        apart.close()


class Odd:
    """Every third input fails."""

    name = "odd"

    def __init__(self, seed: int) -> None:
        self.number = seed

    def __enter__(self) -> "Odd":
        return self

    def __exit__(self, *_: object) -> None:
        """End nothing."""

    def payload(self) -> bytes:
        self.number += 1
        return b"%d" % self.number

    def attempt(self, payload: bytes) -> Attempt:
        if int(payload) % 3 == 0:
            raise Failure(f"{int(payload)} is odd")
        return Attempt(("even", "even"), float(payload), 1.0)


def test_a_run_goes_on_after_a_failure_and_keeps_its_input_to_be_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="20 inputs failed; they are in "):
        runner.run(Odd, "", ["--folder", str(tmp_path)])
    printed = " ".join(capsys.readouterr().out.split())
    assert "80 damaged inputs for odd, seed 0" in printed
    assert "failure 1: 6 is odd" in printed
    assert (tmp_path / "odd" / "failure-1").read_bytes() == b"6"
    assert (tmp_path / "odd" / "slowest").read_bytes() == b"59"
    with pytest.raises(SystemExit, match="failure-1 fails: 6 is odd"):
        runner.run(Odd, "", ["--replay", str(tmp_path / "odd" / "failure-1")])
    runner.run(Odd, "", ["--replay", str(tmp_path / "odd" / "slowest")])
    assert "even 2, after 59000 ms of CPU time" in " ".join(capsys.readouterr().out.split())


# Live servers


def test_messages_are_put_together_as_they_were_and_changed_by_the_seed() -> None:
    for messages in requests(b"payload").values():
        for message in messages:
            assert joined(fields(message) or []) == message
            assert changed(Random(3), message) == changed(Random(3), message)


def test_damaged_requests_are_refused_or_answered_by_a_server_that_goes_on() -> None:
    report = Report()
    with Rpcs(1) as target:
        fuzz(target, 30, report)
        assert report.failures == []
        assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND"} <= set(report.outcomes)
        target._server.process.kill()
        until(lambda: target._server.process.poll() is not None)
        with pytest.raises(Failure, match="the server ended with status -9"):
            target.attempt(target.payload())


def test_damaged_http_is_refused_or_answered_by_a_server_that_goes_on() -> None:
    report = Report()
    with Doors(6) as target:
        fuzz(target, 25, report)
        assert report.failures == []
        assert {"200", "400", "404"} <= set(report.outcomes)
