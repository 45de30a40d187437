# SPDX-License-Identifier: Apache-2.0
"""The options of the connection: one table for all commands."""

from dataclasses import fields
from inspect import signature
from typing import Any

import pytest
import typer

from latentwire_cli import app
from latentwire_cli.connection import Connection, connected

ALL = {field.name for field in fields(Connection)}
OMITTED = {"info": {"local", "model"}, "health": {"local", "model", "token"}}
WITHOUT_SERVER = {"serve", "inspect", "train", "draw-faces", "attributes"}


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return {name: command for name, command in group.commands.items() if name not in WITHOUT_SERVER}


@pytest.mark.parametrize("name", sorted(commands()))
def test_a_command_that_talks_to_a_server_has_every_option_of_the_connection_in_one_panel(name: str) -> None:
    options = {each.name: each for each in commands()[name].params}
    chosen = ALL - OMITTED.get(name, set())
    assert chosen <= options.keys()
    assert not OMITTED.get(name, set()) & options.keys()
    assert {getattr(options[each], "rich_help_panel", None) for each in chosen} == {"Server"}


def test_a_command_gets_its_own_arguments_and_a_connection() -> None:
    @connected("token")
    def command(count: int, *, connection: Connection) -> tuple[int, Connection]:
        """Do something."""
        return count, connection

    assert set(signature(command).parameters) == {"count"} | ALL - {"token"}
    values = {field.name: field.default for field in fields(Connection) if field.name != "token"}
    assert command(count=3, **{**values, "server": "host:1"}) == (3, Connection(server="host:1"))
