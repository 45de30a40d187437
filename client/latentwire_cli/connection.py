# SPDX-License-Identifier: Apache-2.0
"""The options that say which server a command talks to -> a `Client`; written down once for all commands."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from latentwire_cli.exit_status import Refusal
from latentwire_cli.local import local_server, served_name
from latentwire_cli.options import option, switch, with_options
from latentwire_cli.report import working
from latentwire_client.client import Client
from latentwire_client.config import Limits, Retry, Timeout
from latentwire_client.info import ModelInfo, OnExecution

R = TypeVar("R")

# The server decides about the size of messages; this is protobuf's own limit.
NO_LIMIT = Limits(max_message_bytes=2**31 - 1)
# A run of many files is not given up for a restart or a full queue.
PATIENT = Retry(full_queue_s=120.0, calls_reconnect=True)
MAX_TIMEOUT_S = 1_000_000
PANEL = "Server"


@dataclass(frozen=True)
class Connection:
    """The server of a command, as its options say. `connected` gives them to a command."""

    # Client reads LATENTWIRE_SERVER and LATENTWIRE_TOKEN itself, so that --server given beside --local can be told
    # apart.
    server: Annotated[
        str | None,
        option(text="The server.", default="$LATENTWIRE_SERVER or localhost:50051", panel=PANEL, metavar="HOST:PORT"),
    ] = None
    local: Annotated[bool, switch("--local", "Run the model in this process instead.", panel=PANEL)] = False
    model: Annotated[
        str,
        option(
            text="A model of the server; with --local what `serve --model` takes.",
            default="its first, f8c4; for .lat files f8c32, and the one that made the file",
            panel=PANEL,
            metavar="NAME",
        ),
    ] = ""
    token: Annotated[
        str | None, option(text="The server's token.", default="$LATENTWIRE_TOKEN", panel=PANEL, metavar="TEXT")
    ] = None
    tls: Annotated[bool, switch("--tls", "Speak TLS, trusting the system's roots.", panel=PANEL)] = False
    tls_ca: Annotated[
        Path | None, option(text="Speak TLS, trusting the roots of this PEM file.", panel=PANEL, metavar="PATH")
    ] = None
    timeout: Annotated[
        float | None,
        option(
            text="How long to wait for one answer, seconds, above 0, at most 1000000.",
            default="120; no limit for the images of `encode` and for `compress --refine`",
            panel=PANEL,
            metavar="SECONDS",
        ),
    ] = None

    @contextmanager
    def open(self, *, takes_long: bool = False, on_execution: OnExecution | None = None) -> Iterator[Client]:
        """Open a client, and with `local` a server in this process; close both at the end.

        Args:
            takes_long: whether answers may take any time where no timeout is given.
            on_execution: see `Client`.

        Raises:
            Refusal: an option is out of its range or contradicts another, or the server extra is missing.
            ModelError, ServerError: the local model cannot be served.
        """
        if self.timeout is not None and not 0 < self.timeout <= MAX_TIMEOUT_S:
            raise Refusal(f"--timeout is {self.timeout:g}; it must be above 0 and at most {MAX_TIMEOUT_S} seconds")
        unset = self.timeout is None and not takes_long
        timeout = Timeout() if unset else Timeout(call_s=self.timeout, stream_item_s=self.timeout)
        if self.local and (self.server is not None or self.tls or self.tls_ca is not None):
            raise Refusal("--local runs the model in this process; leave out --server, --tls and --tls-ca")
        with ExitStack() as stack:
            if self.local:
                with working("loading the model"):
                    where: dict[str, Any] = {"target": stack.enter_context(local_server(self.model))}
            else:
                where = {
                    "target": self.server, "model": self.model, "token": self.token, "tls": self.tls_ca or self.tls,
                }  # fmt: skip
            try:
                client = Client(**where, timeout=timeout, retry=PATIENT, limits=NO_LIMIT, on_execution=on_execution)
            except ValueError as error:
                raise Refusal(str(error)) from error
            yield stack.enter_context(client)

    @property
    def model_name(self) -> str:
        """The name that the model has on the server; empty: the server's default."""
        return served_name(self.model) if self.local else self.model

    def chosen_model(self, client: Client) -> ModelInfo:
        """Return what the server says about the chosen model; raise Refusal where it has no model of that name."""
        models = client.info().models
        for each in models:
            if self.local or each.name == (self.model or models[0].name):
                return each
        raise Refusal(f"{client.target} has no model {self.model!r}; it has {', '.join(each.name for each in models)}")


def connected(*omitted: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command the options of a `Connection` in the place of its parameter `connection`.

    Args:
        omitted: the names of options that the command does not have.
    """
    return with_options(Connection, "connection", omitted)
