# SPDX-License-Identifier: Apache-2.0
"""`latentwire serve --workers 2`: two real processes share one port, and a third one watches them."""

import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import requests

from latentwire_client import Client
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub
from tests.waiting import until

COMMAND = [str(Path(sys.executable).with_name("latentwire")), "serve", "--workers", "2", "--port", "0"]


@dataclass
class Started:
    """A server, its line of readiness, and the file with its log."""

    process: "subprocess.Popen[str]"
    line: str
    log: Path

    @property
    def target(self) -> str:
        return self.line.split(" on ")[1].split(",")[0]

    @property
    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


@pytest.fixture(scope="module")
def started(tiny_kl: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    log = tmp_path_factory.mktemp("workers") / "log"
    flags = ["--model", f"tiny={tiny_kl}", "--device", "cpu", "--http-port", "0", "--metrics-port", "0"]
    with (
        log.open("w") as file,
        subprocess.Popen([*COMMAND, *flags], stdout=subprocess.PIPE, stderr=file, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            assert line.startswith("serving tiny on 127.0.0.1:"), log.read_text()
            yield Started(process, line, log)
        finally:
            process.kill()  # the workers end with it


def ask(target: str) -> None:
    """Ask over a connection of its own."""
    with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = LatentCodecServiceStub(channel)
        assert stub.GetServerInfo(pb.GetServerInfoRequest()).models[0].name == "tiny"


def test_two_workers_share_the_ports_and_the_ready_line_tells_where_the_metrics_of_each_are(started: Started) -> None:
    _, http, *metrics = (part.split(" ")[-1] for part in started.line.split(", "))
    assert len(set(metrics)) == 2
    for _ in range(24):  # connections are spread at random: all to one once in 8 million runs
        ask(started.target)
        assert requests.get(f"http://{http}/health").json() == {"status": "ok"}
    for address in metrics:
        with urllib.request.urlopen(f"http://{address}/metrics") as page:
            assert 'latentwire_requests_total{code="OK",method="GetServerInfo"}' in page.read().decode()


def test_when_a_worker_is_killed_the_other_answers_and_a_signal_lets_it_finish_what_it_accepted(
    started: Started,
) -> None:
    killed, other = started.workers
    killed.kill()
    until(lambda: "was ended by signal 9; it is started again" in started.log.read_text())
    with Client(started.target) as client, ThreadPoolExecutor(1) as pool:
        client.info()
        accepted = pool.submit(client.encode, np.zeros((1024, 1024, 3), np.uint8))
        until(lambda: other.cpu_percent(0.05) > 20 or accepted.done())
        # A service manager signals every process of a service in this way.
        other.send_signal(signal.SIGTERM)
        started.process.send_signal(signal.SIGTERM)
        assert accepted.result().values.shape == (1, 4, 256, 256)
    assert started.process.wait() == 0
    assert not other.is_running()
    assert started.process.stdout is not None
    assert started.process.stdout.read() == ""
    lines = started.log.read_text().splitlines()
    for number in range(2):
        assert any(f"INFO worker {number}: loaded tiny" in line for line in lines)
    assert lines[-1].endswith("INFO stopped [-]")


def test_what_keeps_the_workers_from_starting_is_one_line_and_the_status_2(tmp_path: Path) -> None:
    command = [*COMMAND, "--model", str(tmp_path / "nothing")]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "nothing" in errors[0]
    assert "Traceback" not in ended.stderr
