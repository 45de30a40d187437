# SPDX-License-Identifier: Apache-2.0
"""The command `latentwire`: arguments -> an exit status. One module for each command; functions do heavy imports."""

from collections.abc import Sequence
from typing import Annotated

import typer

from latentwire_cli.commands.compress import compress
from latentwire_cli.commands.decode import decode
from latentwire_cli.commands.decompress import decompress
from latentwire_cli.commands.encode import encode
from latentwire_cli.commands.health import health
from latentwire_cli.commands.info import info
from latentwire_cli.commands.inspect import inspect
from latentwire_cli.commands.roundtrip import roundtrip
from latentwire_cli.commands.serve import serve
from latentwire_cli.commands.train import train
from latentwire_cli.exit_status import end
from latentwire_cli.lab.attributes import app as attributes
from latentwire_cli.lab.draw_faces import draw_faces
from latentwire_cli.lab.edit import edit
from latentwire_cli.lab.latents_report import latents_report
from latentwire_cli.lab.morph import morph
from latentwire_cli.lab.sample import sample
from latentwire_cli.options import switch
from latentwire_proto import __version__

EPILOG = (
    "Exit status: 0 all is done; 1 something failed, each failure is a line on standard error; "
    "2 it could not begin (wrong usage or configuration, no server, a missing extra); "
    "130 interrupted by Ctrl-C, 143 by SIGTERM."
)

app = typer.Typer(name="latentwire", add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
for command in (
    serve, encode, decode, compress, decompress, inspect, roundtrip, sample, morph, latents_report, edit, train,
    draw_faces, info, health,
):  # fmt: skip
    app.command()(command)
app.add_typer(attributes)


@app.callback(invoke_without_command=True, epilog=EPILOG)
def latentwire(
    context: typer.Context,
    version: Annotated[bool, switch("--version", "Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Images to VAE latents and back, over gRPC."""
    if version:
        typer.echo(f"latentwire {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    Args:
        arguments: without the program's name; default: those of the process.
    """
    return end(lambda: typer.main.get_command(app).main(arguments, "latentwire", standalone_mode=False))
