# SPDX-License-Identifier: Apache-2.0
"""Which server a command talks to: the options that say so -> a `Client`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from latentwire_cli.ending import Refusal
from latentwire_cli.local import local_server
from latentwire_cli.report import working
from latentwire_cli.words import NO_VALUE, option
from latentwire_client.client import Client
from latentwire_client.config import Limits, Timeout
from latentwire_client.info import ModelInfo, OnExecution

# The server has the say on the size of messages; this is protobuf's own limit.
NO_LIMIT = Limits(max_message_bytes=2**31 - 1)
MAX_TIMEOUT_S = 1_000_000
PANEL = "Server"

# Client reads LATENTWIRE_SERVER and LATENTWIRE_TOKEN itself, so that --server given beside --local can be told apart.
Server = Annotated[
    str | None,
    option(text="The server.", default="$LATENTWIRE_SERVER or localhost:50051", panel=PANEL, metavar="HOST:PORT"),
]
Local = Annotated[
    bool,
    option("--local", text="Run the model in this process instead.", panel=PANEL, metavar=NO_VALUE),
]
Model = Annotated[
    str,
    option(
        text="A model of the server; with --local what `serve --model` takes.",
        default="its first; f8c4",
        panel=PANEL,
        metavar="NAME",
    ),
]
Token = Annotated[
    str | None, option(text="What the server asks for.", default="$LATENTWIRE_TOKEN", panel=PANEL, metavar="TEXT")
]
Tls = Annotated[bool, option("--tls", text="Speak TLS, trusting the system's roots.", panel=PANEL, metavar=NO_VALUE)]
TlsCa = Annotated[
    Path | None, option(text="Speak TLS, trusting the roots of this PEM file.", panel=PANEL, metavar="PATH")
]
TimeoutS = Annotated[
    float | None,
    option(
        "--timeout",
        text="How long to wait for one answer, seconds, above 0, at most 1000000.",
        default="120; as long as it takes for what `encode` sends and for `compress --refine`",
        panel=PANEL,
        metavar="SECONDS",
    ),
]


@contextmanager
def connect(
    server: str | None,
    token: str | None,
    tls: bool,
    tls_ca: Path | None,
    timeout: float | None,
    *,
    local: bool = False,
    model: str = "",
    takes_long: bool = False,
    on_execution: OnExecution | None = None,
) -> Iterator[Client]:
    """Map the options to a client, and with `local` to a server in this process.

    With `takes_long` answers may take any time where no timeout says otherwise.

    Raises:
        Refusal: the options contradict each other or cannot be, or the server extra is missing.
        ModelError, ServerError: the local model cannot be served.
    """
    if timeout is not None and not 0 < timeout <= MAX_TIMEOUT_S:
        raise Refusal(f"--timeout is {timeout:g}; it must be above 0 and at most {MAX_TIMEOUT_S} seconds")
    default = timeout is None and not takes_long
    waiting = Timeout() if default else Timeout(call_s=timeout, stream_item_s=timeout)
    if local and (server is not None or tls or tls_ca is not None):
        raise Refusal("--local runs the model in this process; leave out --server, --tls and --tls-ca")
    if not local:
        try:
            client = Client(
                server, model=model, timeout=waiting, limits=NO_LIMIT, token=token, tls=tls_ca or tls,
                on_execution=on_execution,
            )  # fmt: skip
        except ValueError as error:
            raise Refusal(str(error)) from error
        with client:
            yield client
        return
    serving = local_server(model)
    with working("loading the model"):
        address = serving.__enter__()
    try:
        with Client(address, timeout=waiting, limits=NO_LIMIT, on_execution=on_execution) as client:
            yield client
    finally:
        serving.__exit__(None, None, None)


def chosen_model(client: Client, model: str, local: bool) -> ModelInfo:
    """Map the options to what the server says of the model that they choose.

    Raises:
        Refusal: the server has no model of that name.
    """
    models = client.info().models
    for each in models:
        if local or each.name == (model or models[0].name):
            return each
    raise Refusal(f"{client.target} has no model {model!r}; it has {', '.join(each.name for each in models)}")
