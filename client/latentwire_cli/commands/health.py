# SPDX-License-Identifier: Apache-2.0
"""`latentwire health`: a server -> an exit status, for probes."""

from dataclasses import replace
from typing import Annotated

import typer

from latentwire_cli.connection import PANEL, Connection, connected
from latentwire_cli.exit_status import FAILED, NOT_BEGUN, print_error, reason
from latentwire_cli.options import option
from latentwire_cli.report import print_line
from latentwire_client.errors import LatentwireError


@connected("local", "model", "token", "timeout")
def health(
    *,
    connection: Connection,
    timeout: Annotated[
        float,
        option(
            text="How long to wait for the answer, seconds, above 0, at most 1000000.",
            default="5",
            panel=PANEL,
            metavar="SECONDS",
        ),
    ] = 5.0,
) -> None:
    """Ask whether a server is serving.

    Exit status 0: it is serving; 1: it answers, but warms up or drains; 2: it cannot be reached.
    """
    with replace(connection, timeout=timeout).open() as client:
        try:
            serving = client.is_healthy()
        except LatentwireError as error:
            print_error(reason(error))
            raise typer.Exit(NOT_BEGUN) from error
    print_line(f"{'serving' if serving else 'not serving'} at {client.target}")
    if not serving:
        raise typer.Exit(FAILED)
