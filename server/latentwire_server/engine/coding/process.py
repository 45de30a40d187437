# SPDX-License-Identifier: Apache-2.0
"""Requests -> the answers of one coding process (coder.py), which is started, asked and killed here."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any

import numpy as np

from latentwire_core import errors
from latentwire_server.engine.coding.coder import LENGTHS
from latentwire_server.errors import ServerError

# As with the server's workers, no module of the working directory comes before an installed one.
MAIN = "import sys; from latentwire_server.engine.coding.coder import main; main(*map(int, sys.argv[1:]))"
# The arithmetic of a coding process is the decoders': threads for linear algebra would only take memory.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Crashed(Exception):
    """The process ended in the middle of a request.

    Args:
        end: how it ended, such as `was ended by signal 11`.
    """

    def __init__(self, end: str) -> None:
        super().__init__(f"the coding process {end}")
        self.end = end


class CodingProcess:
    """One process; for one event loop. `start` makes it."""

    def __init__(self, process: asyncio.subprocess.Process, connection: socket.socket) -> None:
        self._process = process
        self._connection = connection
        self._asked = False
        self.holds_image = False

    @classmethod
    async def start(cls, memory_bytes: int, niceness: int) -> "CodingProcess":
        """Start a process with this much address space and priority, and wait until it is ready.

        Raises:
            ServerError: it cannot be started.
        """
        ours, its = socket.socketpair()
        try:
            with its:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-c", MAIN, str(its.fileno()), str(memory_bytes), str(niceness),
                    stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(its.fileno(),),
                    # A group of its own: a terminal sends Ctrl-C to a whole group.
                    process_group=0, env=os.environ | ONE_THREAD,
                )  # fmt: skip
        except OSError as error:
            ours.close()
            raise ServerError(f"a process that reads image files cannot be started: {error.strerror}") from error
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        started = cls(process, ours)
        try:
            await started._receive()
        except BaseException as error:
            await started.kill()
            if isinstance(error, Crashed):
                raise ServerError(
                    f"{error} before it was ready to read image files; its standard error says why"
                ) from error
            raise
        return started

    @property
    def is_ready(self) -> bool:
        """Whether the process can be asked: it has answered every request, and has not ended as far as is known."""
        return not self._asked and self._process.returncode is None

    async def ask(self, head: dict[str, Any], body: Any = b"") -> tuple[dict[str, Any], Any]:
        """Send a request, and return the two parts of its answer, the second one as a writable uint8 array.

        Raises:
            CodecError: the answer is that error.
            Crashed: the process ended before it answered.
        """
        loop = asyncio.get_running_loop()
        self._asked = True
        encoded = json.dumps(head).encode()
        sent = memoryview(body).cast("B") if len(body) else memoryview(b"")
        try:
            await loop.sock_sendall(self._connection, LENGTHS.pack(len(encoded), len(sent)) + encoded)
            await loop.sock_sendall(self._connection, sent)
        except ConnectionError as error:
            raise await self._crashed() from error
        answer, data = await self._receive()
        self._asked = False
        self.holds_image = head["do"] == "open" and "error" not in answer
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["text"])
        return answer, data

    def kill(self) -> "asyncio.Task[int]":
        """End the process at once; the task ends when the process has ended."""
        with suppress(OSError):  # wakes whoever still waits for an answer, as closing would not
            self._connection.shutdown(socket.SHUT_RDWR)
        if self._process.returncode is None:
            self._process.kill()
        return asyncio.create_task(self._ended())

    async def _ended(self) -> int:
        status = await self._process.wait()
        self._connection.close()
        return status

    async def _receive(self) -> tuple[dict[str, Any], Any]:
        try:
            head_bytes, body_bytes = LENGTHS.unpack(await self._received(LENGTHS.size))
            return json.loads((await self._received(head_bytes)).tobytes()), await self._received(body_bytes)
        except ConnectionError as error:
            raise await self._crashed() from error

    async def _received(self, size: int) -> Any:
        # Not a bytearray, whose memory would be zeroed first.
        data = np.empty(size, np.uint8)
        rest = data.data
        while rest:
            count = await asyncio.get_running_loop().sock_recv_into(self._connection, rest)
            if not count:
                raise ConnectionResetError
            rest = rest[count:]
        return data

    async def _crashed(self) -> Crashed:
        status = await self._process.wait()
        return Crashed(f"ended with status {status}" if status >= 0 else f"was ended by signal {-status}")
