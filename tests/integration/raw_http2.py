# SPDX-License-Identifier: Apache-2.0
"""Frames of HTTP/2 (RFC 9113) over a socket: what a client can send to a gRPC server that no library would send."""

import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 0x3, 0x4
CANCEL = (0x8).to_bytes(4)
FRAME_BYTES = 16_384
WINDOW_BYTES = 65_535
ENCODE = "/latentwire.v1.LatentCodecService/Encode"


class RawConnection:
    """One connection that obeys the windows of flow control and nothing else; a context manager.

    Attributes:
        settings: what the server announced: identifier -> value.
        answered: the streams on which headers came.
        reset: the streams that the server reset or ended.
        closed: whether the server closed the connection.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._received = bytearray()
        self._windows: dict[int, int] = {0: WINDOW_BYTES}
        self._next = 1
        self.settings: dict[int, int] = {}
        self.answered: set[int] = set()
        self.reset: set[int] = set()
        self.closed = False
        self._send(PREFACE + _frame(SETTINGS, 0, 0, b""))

    def __enter__(self) -> Self:
        """Return the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._socket.close()

    def call(self, path: str = ENCODE, headers: Mapping[str, str] | None = None) -> int:
        """Open a stream by the headers of an RPC; return its number."""
        stream, self._next = self._next, self._next + 2
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers",
                  "content-type": "application/grpc", **(headers or {})}  # fmt: skip
        self._windows[stream] = self.settings.get(INITIAL_WINDOW_SIZE, WINDOW_BYTES)
        self._send(_frame(HEADERS, END_HEADERS, stream, b"".join(map(_literal, fields, fields.values()))))
        return stream

    def cancel(self, stream: int) -> None:
        """Reset a stream."""
        self._send(_frame(RST_STREAM, 0, stream, CANCEL))

    def send(self, bodies: Mapping[int, bytes], quiet_s: float = 1.0) -> dict[int, int]:
        """Send the data of several streams in turn; return how much was sent of each when the server took no more.

        Args:
            bodies: stream -> data; the streams stay open.
            quiet_s: how long the server may leave every window closed before the rest counts as not taken.
        """
        sent = dict.fromkeys(bodies, 0)
        last = time.monotonic()
        while not self.closed and time.monotonic() - last < quiet_s:
            moved = False
            for stream, body in bodies.items():
                room = min(FRAME_BYTES, self._windows[0], self._windows[stream], len(body) - sent[stream])
                if room > 0 and stream not in self.reset:
                    self._send(_frame(DATA, 0, stream, body[sent[stream] : sent[stream] + room]))
                    sent[stream] += room
                    self._windows[0] -= room
                    self._windows[stream] -= room
                    moved = True
            self.read(0.0 if moved else 0.05)
            if moved:
                last = time.monotonic()
            elif all(sent[each] == len(body) for each, body in bodies.items()):
                break
        return sent

    def read(self, wait_s: float) -> None:
        """Take in what the server sent, and wait for it so long at most."""
        self._socket.settimeout(wait_s or 1e-6)
        try:
            data = self._socket.recv(2**20)
            self.closed |= not data
            self._received += data
        except TimeoutError:
            return
        except ConnectionError:
            self.closed = True
        for kind, flags, stream, payload in self._frames():
            if kind == SETTINGS and not flags & ACK:
                self._settle(payload)
            elif kind == PING and not flags & ACK:
                self._send(_frame(PING, ACK, 0, payload))
            elif kind == WINDOW_UPDATE:
                self._windows[stream] = self._windows.get(stream, 0) + int.from_bytes(payload) % 2**31
            elif kind == HEADERS:
                self.answered.add(stream)
            if kind == RST_STREAM or (kind in (HEADERS, DATA) and flags & END_STREAM):
                self.reset.add(stream)

    def read_until(self, condition: Callable[[], object]) -> None:
        """Take in what the server sends until a condition holds or the connection is closed."""
        while not self.closed and not condition():
            self.read(0.05)

    def _settle(self, payload: bytes) -> None:
        before = self.settings.get(INITIAL_WINDOW_SIZE, WINDOW_BYTES)
        self.settings |= dict(struct.iter_unpack(">HI", payload))
        grown = self.settings.get(INITIAL_WINDOW_SIZE, WINDOW_BYTES) - before
        self._windows = {stream: size + grown * bool(stream) for stream, size in self._windows.items()}
        self._send(_frame(SETTINGS, ACK, 0, b""))

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        while len(self._received) >= 9:
            length = int.from_bytes(self._received[:3])
            if len(self._received) < 9 + length:
                return
            kind, flags = self._received[3:5]
            stream = int.from_bytes(self._received[5:9]) % 2**31
            payload = bytes(self._received[9 : 9 + length])
            del self._received[: 9 + length]
            yield kind, flags, stream, payload

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(30)
        try:
            self._socket.sendall(data)
        except ConnectionError:
            self.closed = True


def message(data: bytes, *, announced: int | None = None, compressed: bool = False) -> bytes:
    """Map the bytes of a message to their form in a gRPC stream; `announced` is a length that may be another."""
    return bytes([compressed]) + struct.pack(">I", len(data) if announced is None else announced) + data


def unfinished(connection: RawConnection, calls: Sequence[int], size: int) -> dict[int, int]:
    """Send so many bytes of a message on each stream that announces one byte more; return how much was taken."""
    body = message(bytes(size), announced=size + 1)
    return connection.send(dict.fromkeys(calls, body))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _literal(name: str, value: str) -> bytes:
    """Encode a header without a table (RFC 7541, 6.2.2)."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode()
    assert len(data) < 127
    return bytes([len(data)]) + data
