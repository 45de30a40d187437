# SPDX-License-Identifier: Apache-2.0
"""The command `latentwire`: arguments -> an exit status. One module for each command; heavy imports are inside them."""

from collections.abc import Sequence
from typing import Annotated

import typer

from latentwire_client.cli.attributes import app as attributes
from latentwire_client.cli.compress import compress
from latentwire_client.cli.decode import decode
from latentwire_client.cli.decompress import decompress
from latentwire_client.cli.draw_faces import draw_faces
from latentwire_client.cli.edit import edit
from latentwire_client.cli.encode import encode
from latentwire_client.cli.ending import end
from latentwire_client.cli.health import health
from latentwire_client.cli.info import info
from latentwire_client.cli.inspect import inspect
from latentwire_client.cli.latents_report import latents_report
from latentwire_client.cli.morph import morph
from latentwire_client.cli.roundtrip import roundtrip
from latentwire_client.cli.sample import sample
from latentwire_client.cli.serve import serve
from latentwire_client.cli.train import train
from latentwire_client.cli.words import NO_VALUE, option
from latentwire_proto import __version__

EPILOG = (
    "Exit status: 0 all is done; 1 something failed, each failure is a line on standard error; "
    "2 it could not begin (wrong usage or configuration, no server, a missing extra); 130 interrupted."
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
    version: Annotated[
        bool, option("--version", text="Print the version and exit.", metavar=NO_VALUE, is_eager=True)
    ] = False,
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
