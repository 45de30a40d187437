# SPDX-License-Identifier: Apache-2.0
"""Calls as gRPC clients never send them -> the bytes of an HTTP/2 connection, and what comes back on it."""

import socket
import struct
from random import Random

from tests.fuzz.damage import damaged

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
QUIET_S = 0.5
TIMEOUTS = ("1n", "0S", "-1S", "99999999H", "123456789S", "S", "1", "1x", "1.5S", "", "9" * 400 + "S", " 1S")
ENCODINGS = ("gzip", "deflate", "identity", "br", "", "x" * 300)
KINDS = ("application/grpc", "application/grpc+proto", "application/json", "", "application/grpc+" + "x" * 500)


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Return a frame of HTTP/2."""
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def head(pairs: list[tuple[str, str]]) -> bytes:
    """Return HPACK of names and values, without a table and without Huffman's code."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in pairs)


def _text(text: str) -> bytes:
    data = text.encode("latin-1")
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, length = len(data) - 127, b"\x7f"
    while rest >= 128:
        length, rest = length + bytes([rest & 127 | 128]), rest >> 7
    return length + bytes([rest]) + data


def connection(random: Random, path: str, messages: list[bytes]) -> bytes:
    """Return all that a client with faults sends: some calls of a path, and frames that belong to none."""
    sent = [PREFACE, frame(SETTINGS, 0, 0, random.choice((b"", struct.pack(">HI", 3, 1 << 31), b"\0")))]
    for stream in range(1, random.choice((2, 4, 40)), 2):
        pairs = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        pairs += [("te", "trailers"), ("content-type", "application/grpc")]
        for name, values in (("grpc-timeout", TIMEOUTS), ("grpc-encoding", ENCODINGS), ("content-type", KINDS)):
            if random.random() < 0.4:
                pairs.append((name, random.choice(values)))
        if random.random() < 0.3:
            pairs.append((random.choice(("x-bin", "X", "", "authorization", ":path", "x\0")), "\xff" * 20))
        sent.append(frame(HEADERS, END_HEADERS, stream, head(pairs)))
        for message in messages:
            flag, length = random.choice((0, 0, 0, 1, 2)), len(message) + random.choice((0, 0, 0, 1, -1, 1 << 24))
            body = bytes([flag]) + struct.pack(">I", max(0, length)) + message
            sent += [frame(DATA, 0, stream, body[at : at + 16_000]) for at in range(0, len(body), 16_000)]
        sent.append(
            random.choice(
                (
                    frame(DATA, END_STREAM, stream, b""),
                    frame(DATA, END_STREAM, stream, b""),
                    frame(RST_STREAM, 0, stream, struct.pack(">I", 8)),
                    b"",
                )
            )
        )
    if random.random() < 0.3:
        kind = random.choice((PING, GOAWAY, WINDOW_UPDATE, CONTINUATION, SETTINGS, 77))
        sent.insert(random.randint(1, len(sent)), frame(kind, random.randrange(256), 0, random.randbytes(8)))
    data = b"".join(sent)
    return damaged(random, data, data) if random.random() < 0.3 else data


def talk(address: tuple[str, int], data: bytes, *, closes: bool) -> str:
    """Send bytes over a connection, read until nothing more comes, and return how it ended."""
    with socket.create_connection(address, timeout=30) as link:
        link.settimeout(QUIET_S)
        answers = b""
        try:
            link.sendall(data)
            if closes:
                link.shutdown(socket.SHUT_WR)
            while part := link.recv(65536):
                answers += part
                if _ended(answers):
                    return "raw: answered"
        except TimeoutError:
            return "raw: quiet"
        except OSError:
            return "raw: reset"
    return "raw: closed"


def _ended(answers: bytes) -> bool:
    """Tell whether the last call on the connection, or the connection, was ended by a frame."""
    at = 0
    while at + 9 <= len(answers):
        size, kind, flags = int.from_bytes(answers[at : at + 3], "big"), answers[at + 3], answers[at + 4]
        if kind in {RST_STREAM, GOAWAY} or (kind in {HEADERS, DATA} and flags & END_STREAM):
            return True
        at += 9 + size
    return False
