# SPDX-License-Identifier: Apache-2.0
"""Damaged HTTP requests -> statuses of a live server: raw bytes for the door of diffusers' remote functions.

    python -m tests.fuzz.doors [--minutes 10] [--seed 0] [--replay FILE]

An input is all that a client sends on one connection: good, odd and damaged request lines, headers, queries and bodies,
in one piece or in chunks, several behind each other, cut off. How the bytes are sent follows from the bytes. No answer
may have a status of 500 or be no HTTP. After each input the server must be alive, must have logged no fault, must not
hold much more memory, and must answer a good request as it did at first.
"""

import http.client
import re
import socket
import zlib
from random import Random
from typing import Self

import numpy as np

from tests.fuzz.damage import damaged
from tests.fuzz.image_files import corpus
from tests.fuzz.live import LIMITS, LiveServer
from tests.fuzz.runner import Attempt, Failure, run

QUIET_S = 0.5
"""Time without bytes after which a connection that stays open is left."""
ANSWER_S = 60
METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "post", "P" * 300, "")
USUAL = ("/", "/decode", "/encode", "/predict", "/f8c4/decode", "/f8c4/encode")
PATHS = ("/health", "/f8c4", "/nobody", "/%00",
         "//decode", "*", "http://x/decode", "/" + "a" * 9000, "/decode/../health", "")  # fmt: skip
VERSIONS = ("HTTP/1.0", "HTTP/2.0", "HTTP/9", "", "HTTP/1.1 ")
NAMES = ("shape", "dtype", "do_scaling", "scaling_factor", "shift_factor", "output_type", "partial_postprocess",
         "image_format", "input_tensor_type", "output_tensor_type", "height", "width", "seed", "x")  # fmt: skip
VALUES = ("1", "4", "6", "0", "-1", "float32", "float16", "bfloat16", "uint8", "true", "false", "nan", "inf", "1e400",
          "pil", "pt", "png", "jpg", "binary", "base64", "9" * 400, "%FF", "", "[1,4,6,8]", "%2B1", "1_0")  # fmt: skip
HEADERS = ("Content-Length: 5", "Content-Length: -1", "Content-Length: 99999999999999999999", "Content-Length: x",
           "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Expect: 100-continue",
           "Connection: close", "Accept: tensor/binary", "Accept: */*;q=x", "Authorization: Basic !!!",
           "Authorization: Bearer \xff", "Upgrade: h2c", "Host: \x7f", "X-Request-Id: " + "i" * 5000,
           "Content-Encoding: gzip", "no colon", "X: " + "v" * 70_000, " folded: 1")  # fmt: skip
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class Doors:
    """A live server and damaged connections.

    Args:
        seed: of the damage.
    """

    name = "doors"

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        latents = np.linspace(-3, 3, 4 * 6 * 8, dtype=np.float32)
        query = "?shape=1&shape=4&shape=6&shape=8&dtype=float32&output_type=pt&do_scaling=true"
        self._decodes = (query, "tensor/binary", latents.tobytes())
        self._encodes = tuple(("", "image/x", corpus()[name][0]) for name in ("PNG", "JPEG", "WEBP", "GIF"))

    def __enter__(self) -> Self:
        self._server = LiveServer("--model", "f8c4", *LIMITS)
        self._first = self._ask()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def payload(self) -> bytes:
        """Return the bytes of the next connection."""
        count = self.random.choice((1, 1, 1, 2, 5))
        data = b"".join(self._request(closes=number == count - 1) for number in range(count))
        if self.random.random() < 0.3:
            data = damaged(self.random, data, data)
        return data[: self.random.randint(0, len(data))] if self.random.random() < 0.1 else data

    def _request(self, *, closes: bool) -> bytes:
        random = self.random
        query, kind, body = random.choice((self._decodes, self._decodes, *self._encodes))
        for _ in range(random.choice((0, 0, 0, 0, 1, 1, 3, 300))):
            query += f"{'&' if query else '?'}{random.choice(NAMES)}={random.choice(VALUES)}"
        if random.random() < 0.1:
            query = damaged(random, query.encode(), b"&&==").decode("latin-1")
        if random.random() < 0.2:
            body = damaged(random, body, body)
        method, version = (
            usual if random.random() < 0.9 else random.choice(odd)
            for usual, odd in (("POST", METHODS), ("HTTP/1.1", VERSIONS))
        )
        path = random.choice(USUAL if random.random() < 0.8 else PATHS)
        line = f"{method} {path}{query} {version}"
        headers = ["Host: localhost", f"Content-Type: {kind}"] + ["Connection: close"] * closes
        if random.random() < 0.25:
            headers.append("Transfer-Encoding: chunked")
            body = _chunks(random, body)
        else:
            headers.append(f"Content-Length: {len(body) + random.choice((0, 0, 0, 0, 0, 1, -1))}")
        if random.random() < 0.3:
            headers.insert(random.randrange(len(headers)), random.choice(HEADERS))
        if random.random() < 0.03:
            headers += ["X: 1"] * 2000
        return "\r\n".join([line, *headers, "", ""]).encode("latin-1") + body

    def attempt(self, payload: bytes) -> Attempt:
        """Send the bytes; raise Failure where an answer or the state of the server is not allowed."""
        before = self._server.held()
        outcomes = self._talk(payload)
        held = self._server.check()
        try:
            if self._ask() != self._first:
                raise Failure("the good request has another answer than at first")
        except OSError as error:
            raise Failure(f"the good request failed: {error!r}") from error
        return Attempt(outcomes, held.cpu_s - before.cpu_s, held.mib - self._server.ready.mib)

    def _talk(self, payload: bytes) -> tuple[str, ...]:
        """Send the bytes in some pieces, stop sending or not, and return the statuses that came."""
        random = Random(zlib.crc32(payload))
        cuts = sorted(random.randint(0, len(payload)) for _ in range(random.choice((0, 0, 1, 5))))
        answers, end = b"", "closed"
        with socket.create_connection(self._server.http, ANSWER_S) as link:
            link.settimeout(QUIET_S)
            try:
                for start, stop in zip([0, *cuts], [*cuts, len(payload)], strict=True):
                    link.sendall(payload[start:stop])
                if random.random() < 0.1:
                    return ("gone without reading",)
                if random.random() < 0.1:
                    link.shutdown(socket.SHUT_WR)
                while part := link.recv(65536):
                    answers += part
            except TimeoutError:
                end = "open"
            except OSError:
                end = "reset"
        if answers and not STATUS.match(answers):
            raise Failure(f"an answer is no HTTP: {answers[:200]!r}")
        statuses = tuple(status.decode() for status in STATUS.findall(answers))
        if "500" in statuses:
            raise Failure(f"an answer has the status 500: {answers[:2000]!r}")
        return statuses or (f"no answer, {end}",)

    def _ask(self) -> bytes:
        query, kind, body = self._decodes
        link = http.client.HTTPConnection(*self._server.http, timeout=ANSWER_S)
        try:
            link.request("POST", f"/decode{query}", body, {"Content-Type": kind})
            answer = link.getresponse()
            data = answer.read()
        finally:
            link.close()
        if answer.status != 200:
            raise Failure(f"the good request was refused: {answer.status} {data[:500]!r}")
        return data


def _chunks(random: Random, body: bytes) -> bytes:
    """Return a body in chunks, at times with wrong sizes, extensions or trailers."""
    data = b""
    for at in range(0, len(body), step := random.choice((100, 1000, 100_000))):
        part = body[at : at + step]
        size = len(part) + random.choice((0,) * 30 + (1, -1, 1 << 40))
        data += b"%x" % max(0, size) + random.choice((b"", b"", b"", b";x=" + b"y" * 300)) + b"\r\n" + part + b"\r\n"
    return data + random.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nX: 1\r\n\r\n", b"", b"0\r\n"))


if __name__ == "__main__":
    run(Doors, __doc__)
