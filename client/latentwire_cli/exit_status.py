# SPDX-License-Identifier: Apache-2.0
"""The exception that ends a command -> the exit status, and at most one line on standard error."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from latentwire_client.errors import LatentwireError, ServerFault, Unauthenticated, Unavailable, UnknownModel
from latentwire_core.errors import CodecError, ModelError
from latentwire_server.errors import ServerError

FAILED = 1
NOT_BEGUN = 2
SIGNALLED = 128
"""The status of a command that a signal ended, less the signal's number: 130 for Ctrl-C, 143 for SIGTERM."""

# After one of these errors, every other item of the run would fail in the same way.
HOPELESS = (Unavailable, Unauthenticated, UnknownModel)
# The same for an OSError: no other file of the run can be written either.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Interrupted(BaseException):
    """A signal ended the command, wherever it was.

    Attributes:
        number: the signal.
        progress: how far the command came, and how to go on; empty: there is nothing to tell.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.progress = ""


class Refusal(Exception):
    """A command cannot begin: its arguments are wrong, or a package is missing."""


def end(command: Callable[[], object]) -> int:
    """Run a command to its end; return the exit status."""
    try:
        with _interruptible():
            status = command()
        sys.stdout.flush()
    except Interrupted as interrupted:
        progress = f": {one_line(interrupted.progress)}" if interrupted.progress else ""
        print(f"interrupted{progress}", file=sys.stderr)
        return SIGNALLED + interrupted.number
    except BrokenPipeError:
        # Nobody reads standard output any more; it must not fail again when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        explained = _explain(error)
        if explained is None:
            raise  # a bug: the traceback is what its report needs
        line, status = explained
        print_error(line)
    return status if isinstance(status, int) else 0


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise Interrupted, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A signal that is ignored stays so: a shell ignores Ctrl-C for what runs in the background.
    watched = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    before = {each: signal.signal(each, interrupt) for each in watched}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def is_hopeless(error: Exception) -> bool:
    """Tell whether every other item of a run would fail in the same way."""
    return isinstance(error, HOPELESS) or (isinstance(error, OSError) and error.errno in FULL)


def print_error(text: str) -> None:
    """Print an error as one line on standard error, safe for a terminal."""
    print(f"error: {one_line(text)}", file=sys.stderr)


def reason(error: Exception) -> str:
    """Map the failure of one item to the reason, without the item's path."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename
        if isinstance(error, FileNotFoundError) and name is not None and os.path.islink(name):
            return f"it is a link to {os.fsdecode(os.readlink(name))}, which is not there"
        return error.strerror
    if isinstance(error, ServerFault) and error.request_id:
        return f"{error} (request id {error.request_id})"
    return str(error) or type(error).__name__


def one_line(text: str) -> str:
    """Map any text to a single line without control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _explain(error: Exception) -> tuple[str, int] | None:
    """Map what a command raised to a line and a status; return None for an error that no command should raise."""
    if isinstance(error, typer.TyperException):  # the command line itself; its base class in every version
        context = getattr(error, "ctx", None)
        name = "latentwire" if context is None else context.command_path
        return f"{error.format_message().rstrip('.')} (see {name} --help)", NOT_BEGUN
    if isinstance(error, (*HOPELESS, Refusal, ModelError, ServerError)):
        return reason(error), NOT_BEGUN
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {reason(error)}", FAILED
    if isinstance(error, LatentwireError | CodecError | OSError | ValueError):
        return reason(error), FAILED
    return None
