# SPDX-License-Identifier: Apache-2.0
"""The exception that ends a command -> the exit status, and at most one line on standard error."""

import os
import sys
from collections.abc import Callable

import typer

from latentwire_client.errors import LatentwireError, ServerFault, Unauthenticated, Unavailable, UnknownModel
from latentwire_core.errors import CodecError, ModelError
from latentwire_server.errors import ServerError

FAILED = 1
NOT_BEGUN = 2

# After one of these errors, every other item of the run would fail in the same way.
HOPELESS = (Unavailable, Unauthenticated, UnknownModel)


class Refusal(Exception):
    """A command cannot begin: its arguments are wrong, or a package is missing."""


def end(command: Callable[[], object]) -> int:
    """Run a command to its end; return the exit status."""
    try:
        status = command()
        sys.stdout.flush()
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


def print_error(text: str) -> None:
    """Print an error as one line on standard error, safe for a terminal."""
    print(f"error: {one_line(text)}", file=sys.stderr)


def reason(error: Exception) -> str:
    """Map the failure of one item to the reason, without the item's path."""
    if isinstance(error, OSError) and error.strerror:
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
