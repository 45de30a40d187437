# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.serving`: loops of clients, latencies from when calls were due, the server's memory."""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.environment import ROOT
from benchmarks.serving import caller
from benchmarks.serving.__main__ import FLAT, main
from benchmarks.serving.callers import callers, in_closed_loop, in_open_loop
from benchmarks.serving.forms import DEFAULT_FORMS, FORMS, Form, messages
from benchmarks.serving.measuring import InProcess, closed_row
from benchmarks.serving.server import Served, serving
from benchmarks.serving.statistics import Drift, Percentiles, Window, arrivals
from latentwire_client import Client, Latents
from latentwire_codec.load import load_autoencoder
from latentwire_codec.metrics.scores import psnr

MIB = 2**20


@pytest.fixture(scope="module")
def local() -> InProcess:
    """The bundled model in this process, with a small photograph."""
    return InProcess.of(load_autoencoder("f8c4", device="cpu"), 64)


@pytest.fixture(scope="module")
def inputs(local: InProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what clients send."""
    return local.write(tmp_path_factory.mktemp("inputs") / "64", stream_images=12)


@pytest.fixture(scope="module")
def record(serving_run: Path) -> dict[str, Any]:
    """What run.json of a small run holds."""
    found: dict[str, Any] = json.loads((serving_run / "run.json").read_text())
    return found


def task(target: str, folder: Path, **more: Any) -> dict[str, Any]:
    return {"target": target, "message_mib": 64, "folder": str(folder), **more}


def test_percentiles_are_the_smallest_that_so_many_do_not_exceed() -> None:
    latencies = [float(number) for number in range(100, 0, -1)]
    assert Percentiles.of(latencies) == Percentiles(p50=50.0, p95=95.0, p99=99.0, count=100)
    assert Percentiles.of([3.0, 1.0, 2.0]) == Percentiles(p50=2.0, p95=3.0, p99=3.0, count=3)


def test_a_window_begins_with_the_last_answer_of_the_warming_up() -> None:
    ends = [1.0, 2.0, 2.5, 3.0, 4.0, 4.5]
    window = Window.of(ends, warm_s=2.6)
    assert window == Window(begun_s=2.5, ended_s=4.5, answers=3)
    assert window.rate == 1.5
    assert Window.of(ends, warm_s=0.5) == Window(begun_s=1.0, ended_s=4.5, answers=5)


def test_batches_that_answer_at_once_do_not_change_the_rate() -> None:
    # Four images every second: the window counts whole batches.
    ends = [float(number) for number in range(1, 6) for _ in range(4)]
    window = Window.of(ends, warm_s=2.0)
    assert window is not None
    assert window.rate == 4.0


def test_too_few_answers_have_no_window() -> None:
    assert Window.of([], 0.0) is None
    assert Window.of([1.0, 2.0], warm_s=5.0) is None


def test_arrivals_are_a_poisson_process_of_the_rate() -> None:
    moments = arrivals(rate=20.0, count=4000, seed=1)
    gaps = [after - before for before, after in pairwise([0.0, *moments])]
    assert min(gaps) > 0
    assert moments[-1] == pytest.approx(200, rel=0.05)
    # The gaps of a Poisson process spread as much as they last: e^-1 of them are longer than the mean.
    assert sum(gap > 1 / 20 for gap in gaps) / 4000 == pytest.approx(0.368, abs=0.03)
    assert arrivals(20.0, 4000, seed=1) == moments


def test_drift_is_between_the_ends() -> None:
    drift = Drift.of([1.0, 3.0, 9.0, 9.0, 2.0, 4.0], count=2)
    assert (drift.first, drift.last, drift.ratio) == (2.0, 3.0, 1.5)


def test_the_numbers_of_a_closed_loop() -> None:
    calls = [
        {"due_s": end - 1.0, "ended_s": end, "compute_s": 0.25, "server_s": 0.75} for end in (1.0, 1.5, 2.0, 2.5, 3.0)
    ]
    row = closed_row(calls, warm_s=1.2, in_process=4.0, devices=1)
    assert (row["answers"], row["window_s"], row["images_per_s"], row["ratio"]) == (4, 2.0, 2.0, 0.5)
    assert (row["busy_share"], row["overhead_s"], row["latency_s"]["p50"]) == (0.5, 0.25, 1.0)
    with pytest.raises(RuntimeError, match="1 calls were answered, too few"):
        closed_row(calls[:1], warm_s=0.0, in_process=1.0, devices=1)


@pytest.mark.parametrize("name", FORMS)
def test_each_form_gives_what_the_client_gives(target: str, local: InProcess, inputs: Path, name: str) -> None:
    with Client(target) as client:
        answer: Any = Form.of(name).call(client, inputs)()
    if isinstance(answer, Latents):
        assert answer.values.shape == local.latents.shape
        assert name != "encode-raw" or (answer.values == local.latents).all()
    elif isinstance(answer, list):
        assert answer[0][:2] in (b"\xff\xd8", b"\x89P")
    else:
        assert psnr(answer[0], local.decode()) > 60


def test_messages_are_as_large_as_what_they_carry(target: str, inputs: Path) -> None:
    raw = messages(target, Form("encode", "raw"), inputs, MIB)
    assert 64 * 64 * 3 < raw.request_bytes < 64 * 64 * 3 + 100
    assert 2 * 4 * 8 * 8 < raw.response_bytes < 2 * 4 * 8 * 8 + 400
    file = messages(target, Form("encode", "jpeg"), inputs, MIB)
    assert 0 < file.request_bytes - (inputs / "image.jpeg").stat().st_size < 100
    assert messages(target, Form("decode", "raw"), inputs, MIB).response_bytes > 64 * 64 * 3
    assert messages(target, Form("decode", "png"), inputs, MIB).response_bytes < 64 * 64 * 3


def test_a_closed_loop_runs_on_until_there_are_answers_enough(target: str, inputs: Path) -> None:
    found = caller.closed_loop(
        task(target, inputs, form="decode-raw", threads=3, warm_s=0.0, seconds=0.0, least=7)
    )  # fmt: skip
    ends = [call["ended_s"] for call in found["calls"]]
    assert len(ends) >= 8
    assert ends == sorted(ends)
    assert max(ends) <= found["cut_s"]
    assert found["errors"] == {}
    for call in found["calls"]:
        assert 0 < call["compute_s"] <= call["server_s"] < call["ended_s"] - call["due_s"]


def test_a_closed_loop_ends_where_the_server_refuses_everything(target: str, tmp_path: Path) -> None:
    (tmp_path / "image.jpeg").write_bytes(b"no image")
    found = caller.closed_loop(
        task(target, tmp_path, form="encode-jpeg", threads=2, warm_s=0.0, seconds=0.0, least=3)
    )  # fmt: skip
    assert found["calls"] == []
    assert found["errors"]["InvalidRequest"] > 3


def test_a_call_that_had_to_wait_counts_from_when_it_was_due(target: str, inputs: Path) -> None:
    due_s = time.monotonic()
    found = caller.open_loop(task(target, inputs, form="encode-raw", threads=1, due=[due_s] * 5))
    calls = found["calls"]
    assert {call["due_s"] for call in calls} == {due_s}
    latencies = [call["ended_s"] - call["due_s"] for call in calls]
    # One thread sends them one after the other: the last has waited for all the others in the client.
    assert latencies[-1] > sum(call["server_s"] for call in calls)
    assert [latency > before for before, latency in pairwise(latencies)] == [True] * 4


@pytest.mark.parametrize("operation", ["encode", "decode"])
def test_a_stream_sends_so_many_of_a_folder(target: str, inputs: Path, operation: str) -> None:
    found = caller.stream(task(target, inputs, operation=operation, in_flight=3, count=9))
    assert len(found["calls"]) == 9
    assert found["errors"] == {}
    assert found["wall_s"] >= max(call["ended_s"] - call["due_s"] for call in found["calls"])


def test_a_soak_mixes_requests_and_samples_memory_after_each(target: str, inputs: Path) -> None:
    more = {"pid": os.getpid(), "folders": [str(inputs)], "count": caller.SETTLING + 40, "threads": 2, "seed": 0}
    found = caller.soak(task(target, inputs, **more))
    assert len(found["resident_bytes"]) == 40
    assert min(found["resident_bytes"]) > 100 * MIB
    assert found["surprises"] == {}
    assert set(found["refusals"]) == {"InvalidRequest", "LatentSpaceMismatch", "UnknownModel"}
    assert found["answers"]["answer"] + sum(found["refusals"].values()) == more["count"]


def test_client_processes_share_loops_and_load_no_torch(target: str, inputs: Path) -> None:
    moments = [0.0, 0.01, 0.02, 0.03, 0.04]
    with callers(2) as members:
        closed = in_closed_loop(members, task(target, inputs, form="encode-raw", warm_s=0, seconds=0.1, least=4), 3)
        opened = in_open_loop(members, task(target, inputs, form="encode-raw", threads=2), moments)
    assert len(closed["calls"]) >= 3
    assert len(closed["each"]) == 2
    due = sorted(call["due_s"] for call in opened["calls"])
    assert [each - due[0] for each in due] == pytest.approx(moments)
    assert [len(each["calls"]) for each in opened["each"]] == [3, 2]
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "benchmarks.serving.caller"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    modules = set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\w+)", result.stderr, re.MULTILINE))
    assert "latentwire_client" in modules
    assert not modules & {"torch", "diffusers", "latentwire_server"}


def test_a_run_has_a_row_for_every_point(record: dict[str, Any]) -> None:
    closed = [row for row in record["rows"] if row["kind"] == "closed"]
    assert {(row["form"], row["concurrency"]) for row in closed} == {
        (form, calls) for form in DEFAULT_FORMS for calls in (1, 3)
    }
    for row in closed:
        assert row["errors"] == {}
        assert row["answers"] >= 3
        assert row["ratio"] == pytest.approx(row["images_per_s"] / row["in_process_images_per_s"])
        assert 0 < row["busy_share"] < 1.1
        assert row["latency_s"]["p50"] <= row["latency_s"]["p95"] <= row["latency_s"]["p99"]
        assert row["peak_bytes"] > 100 * MIB
    for row in (row for row in record["rows"] if row["kind"] == "open"):
        highest = max(each["images_per_s"] for each in closed if each["form"] == row["form"])
        assert row["arrivals_per_s"] == pytest.approx(row["share"] * highest)
        assert row["latency_s"]["count"] >= 4
    assert [row["operation"] for row in record["rows"] if row["kind"] == "stream"] == ["encode", "decode"]


def test_a_server_that_does_not_start_is_reported_with_its_log() -> None:
    with pytest.raises(SystemExit, match="nothing-of-that-name"):
        main(["--model", "nothing-of-that-name"])
    with (
        pytest.raises(RuntimeError, match=r"the server did not start: .*--max-side is 1"),
        serving(["--max-side", "1"]),
    ):
        pass


def test_a_soak_too_short_for_means_at_both_ends_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--soak", "299"])
    assert "need at least 300 requests" in capsys.readouterr().err


@pytest.mark.parametrize("growth", [1.0, 1 + 2 * FLAT])
def test_a_soak_whose_memory_grows_fails(growth: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = nullcontext(Served("nowhere:1", os.getpid()))
    monkeypatch.setattr("benchmarks.serving.__main__.serving", lambda flags: idle)
    outcome = {"answers": {"answer": 300}, "refusals": {}, "surprises": {}}
    samples = [100.0] * 100 + [100.0 * growth] * 100
    monkeypatch.setattr(
        "benchmarks.serving.callers.Caller.run", lambda self, task: {"resident_bytes": samples, **outcome}
    )
    arguments = ["--soak", "300", "--sizes", "64", "--device", "cpu", "--out", str(tmp_path)]
    if growth == 1.0:
        main(arguments)
    else:
        with pytest.raises(SystemExit, match="not flat"):
            main(arguments)
    summary = json.loads((tmp_path / "run.json").read_text())["summary"]
    assert summary["ratio"] == pytest.approx(growth)
    assert summary["flat"] == (growth == 1.0)
