# SPDX-License-Identifier: Apache-2.0
"""Requests on a socket -> pixels of image files, and image files of pixels: the program of a coding process.

It imports no torch and holds nothing of the server's: it may be killed at any time. It ends with the server. The other
end of its standard input is the server's, which never writes to it. When the server is gone, the system sends SIGIO,
which ends the process even in the middle of a decoder that holds the interpreter lock.

A message is the lengths of its two parts, an object as JSON, and bytes:

    open   max_side, max_pixels           file    ->  size (width, height)
    read   target (height, width) or null         ->  shape               pixels
    drop                                          ->
    write  shape, size, format, quality   pixels  ->                      file

An answer that is an error has its `error`, the name of the exception, and its `text`.
"""

import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
from contextlib import suppress
from typing import Any

import numpy as np

from latentwire_codec.images import geometry
from latentwire_codec.images.files import ImageLimits, OpenedImage, open_image
from latentwire_codec.images.writing import write_image
from latentwire_core.errors import CodecError, ImageError
from latentwire_core.formats import ImageFormat

LENGTHS = struct.Struct("<IQ")

Answer = tuple[dict[str, Any], "bytes | memoryview"]


class Coder:
    """Answers one request after the other; holds the image that was opened last."""

    def __init__(self) -> None:
        self._image: OpenedImage | None = None

    def answer(self, head: dict[str, Any], body: bytearray) -> Answer:
        """Map a request to its answer; raises what `open_image`, `read` and `write_image` raise."""
        match head["do"]:
            case "open":
                self._image = open_image(bytes(body), ImageLimits(head["max_side"], head["max_pixels"]))
                return {"size": self._image.size}, b""
            case "read":
                image, self._image = self._image, None
                assert image is not None  # the server opens an image first
                pixels = image.read()
                if head["target"] is not None:
                    height, width = head["target"]
                    pixels = geometry.resize_to_cover(pixels, width, height)
                return {"shape": pixels.shape}, np.ascontiguousarray(pixels).data.cast("B")
            case "drop":
                self._image = None
                return {}, b""
            case "write":
                pixels = geometry.crop(np.frombuffer(body, np.uint8).reshape(head["shape"]), *head["size"])
                return {}, write_image(pixels, ImageFormat(head["format"]), head["quality"])
        raise AssertionError(head)


def serve(connection: socket.socket) -> None:
    """Answer the requests on a connection until its other end is closed."""
    coder = Coder()
    with suppress(ConnectionError):  # the server is gone, and with it whoever waited for the answer
        _send(connection, {}, b"")  # ready
        while lengths := _received(connection, LENGTHS.size):
            head_bytes, body_bytes = LENGTHS.unpack(lengths)
            head, body = json.loads(_received(connection, head_bytes)), _received(connection, body_bytes)
            try:
                answer = coder.answer(head, body)
            except CodecError as error:
                answer = _refusal(error), b""
            del body  # it may be as large as the pixels
            _send(connection, *answer)
            del answer


def end_with_server(lifeline: int) -> None:
    """Let the system end this process when the other end of a pipe or socket, which nobody writes to, is closed."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # the end came before
        os._exit(0)


def main(descriptor: int, memory_bytes: int, niceness: int) -> None:
    """Serve on a socket that this process has inherited.

    Args:
        descriptor: the socket's.
        memory_bytes: the most address space that the process may have.
        niceness: how much the process yields to the server, 0 to 19.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # terminals and service managers send them to all at once
        signal.signal(number, signal.SIG_IGN)
    end_with_server(0)
    os.nice(niceness)
    with suppress(ValueError, OSError):  # a lower limit stands already, or the system has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    with socket.socket(fileno=descriptor) as connection:
        serve(connection)


def _refusal(error: CodecError) -> dict[str, Any]:
    if isinstance(error.__cause__, MemoryError):
        limit = resource.getrlimit(resource.RLIMIT_AS)[0] >> 20
        error = ImageError(f"the image takes more than the {limit} MiB of memory that one may take; send a smaller one")
    return {"error": type(error).__name__, "text": str(error)}


def _send(connection: socket.socket, head: dict[str, Any], body: "bytes | memoryview") -> None:
    encoded = json.dumps(head).encode()
    connection.sendall(LENGTHS.pack(len(encoded), len(body)) + encoded)
    connection.sendall(body)


def _received(connection: socket.socket, size: int) -> bytearray:
    """Return the next bytes; empty where the other end is closed."""
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        count = connection.recv_into(rest)
        if not count:
            return bytearray()
        rest = rest[count:]
    return data
