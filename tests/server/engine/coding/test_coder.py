# SPDX-License-Identifier: Apache-2.0
"""The program of a coding process: what it answers, that it is light, and that it ends with the server."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from latentwire_codec.images import geometry
from latentwire_codec.images.files import read_image
from latentwire_codec.images.writing import write_image
from latentwire_core.formats import ImageFormat
from latentwire_server.engine.coding.coder import LENGTHS, serve

PICTURE = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
OPEN = {"do": "open", "max_side": 100, "max_pixels": 10_000}


class Asking:
    """The server's end of a connection to `serve`."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rwb")

    def ask(self, head: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        encoded = json.dumps(head).encode()
        self._file.write(LENGTHS.pack(len(encoded), len(body)) + encoded + body)
        self._file.flush()
        return self.answer()

    def answer(self) -> tuple[dict[str, Any], bytes]:
        head, body = LENGTHS.unpack(self._file.read(LENGTHS.size))
        return json.loads(self._file.read(head)), self._file.read(body)

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def coder() -> Iterator[Asking]:
    ours, its = socket.socketpair()
    thread = threading.Thread(target=serve, args=(its,))
    thread.start()
    asking = Asking(ours)
    assert asking.answer() == ({}, b"")
    yield asking
    asking.close()
    ours.close()
    thread.join()
    its.close()


@pytest.mark.parametrize("target", [None, (20, 30)])
def test_a_file_is_opened_and_then_read(coder: Asking, target: tuple[int, int] | None) -> None:
    assert coder.ask(OPEN, write_image(PICTURE)) == ({"size": [50, 40]}, b"")
    head, pixels = coder.ask({"do": "read", "target": target})
    expected = PICTURE if target is None else geometry.resize_to_cover(PICTURE, 30, 20)
    assert np.array_equal(np.frombuffer(pixels, np.uint8).reshape(head["shape"]), expected)


def test_what_is_wrong_with_a_file_is_told_and_the_next_is_read(coder: Asking) -> None:
    head, _ = coder.ask(OPEN, b"not an image")
    assert head["error"] == "ImageError"
    assert "are not an image" in head["text"]
    head, _ = coder.ask(OPEN, write_image(np.zeros((1, 101, 3), np.uint8)))
    assert head["error"] == "ImageTooLarge"
    assert "--max-side" in head["text"]
    assert coder.ask(OPEN, write_image(PICTURE))[0] == {"size": [50, 40]}
    assert coder.ask({"do": "drop"}) == ({}, b"")


def test_pixels_become_a_cropped_file(coder: Asking) -> None:
    wish = {"do": "write", "shape": PICTURE.shape, "size": (7, 9), "format": ImageFormat.PNG.value, "quality": None}
    assert np.array_equal(read_image(coder.ask(wish, PICTURE.tobytes())[1]), PICTURE[:7, :9])


def run(program: str, **settings: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **settings
    )


def test_the_program_is_light() -> None:
    program = "import sys; import latentwire_server.engine.coding.coder; print(*sys.modules)"
    with run(program) as process:
        assert process.stdout is not None
        loaded = {name.partition(".")[0] for name in process.stdout.read().split()}
    assert loaded.isdisjoint({"torch", "grpc", "diffusers", "google", "asyncio", "starlette"})


HOLDING = """
import ctypes
from latentwire_server.engine.coding.coder import end_with_server
end_with_server(0)
print("ready", flush=True)
ctypes.PyDLL(None).sleep(10**6)  # with the interpreter lock, as some decoders
"""


def test_a_process_ends_with_its_server_though_a_decoder_holds_the_interpreter_lock() -> None:
    with run(HOLDING) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.close()
        assert process.wait() == -signal.SIGIO


def test_a_process_whose_server_ended_before_it_began_ends() -> None:
    with run(HOLDING.replace("end_with_server(0)", "input_ = open(0, closefd=False).read(); end_with_server(0)")) as it:
        assert it.stdin is not None
        it.stdin.close()
        assert it.wait() == 0
