# SPDX-License-Identifier: Apache-2.0
"""The end of a server's process, and a server whose output nobody reads."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import Popen

import numpy as np
import psutil
import pytest

from latentwire_client import Client
from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_server.doors.grpc import transport
from tests.waiting import until

StartServer = Callable[..., AbstractContextManager[tuple["Popen[str]", str]]]


def test_to_leave_is_to_end_without_taking_the_interpreter_apart() -> None:
    code = (
        "import atexit\n"
        "from latentwire_server.process.lifecycle import leave\n"
        "class Loaded:\n"
        "    def __del__(self): print('taken apart')\n"
        "loaded = Loaded(); atexit.register(print, 'ended')\n"
        "print('said'); leave(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\n", "")


@pytest.fixture
def unread(tiny_kl: Path, tmp_path: Path) -> Iterator[tuple["Popen[bytes]", Path]]:
    """A server whose standard output was closed by its reader, and its log."""
    log = tmp_path / "log"
    reading, writing = os.pipe()
    os.close(reading)
    command = [str(Path(sys.executable).with_name("latentwire")), "serve", "--port", "0", "--model", f"tiny={tiny_kl}"]
    with log.open("wb") as stderr, subprocess.Popen(command, stdout=writing, stderr=stderr) as process:
        os.close(writing)
        try:
            yield process, log
        finally:
            process.kill()


def test_a_server_whose_standard_output_nobody_reads_goes_on_and_ends_when_asked(
    unread: tuple["Popen[bytes]", Path],
) -> None:
    process, log = unread
    until(lambda: b"loaded tiny" in log.read_bytes() or process.poll() is not None)
    ports = [each.laddr.port for each in psutil.Process(process.pid).net_connections() if each.status == "LISTEN"]
    with Client(f"127.0.0.1:{ports[0]}") as client:
        assert client.info().models
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    assert b"Traceback" not in log.read_bytes()


def test_a_connection_without_a_call_is_closed_and_neither_a_stream_nor_the_next_call_notices(
    tiny_kl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "IDLE_MS", 200)
    image = np.zeros((8, 8, 3), np.uint8)

    def slowly() -> Iterator["np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]"]:
        for _ in range(3):
            yield image
            time.sleep(0.5)

    config = ServerConfig(models=(ModelSource("tiny", str(tiny_kl)),), port=0)
    with background(config) as server, Client(f"127.0.0.1:{server.port}") as client:
        assert client.info().models
        time.sleep(0.6)
        assert client.info().models
        assert [item.error for item in client.encode_stream(slowly())] == [None] * 3
