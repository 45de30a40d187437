# SPDX-License-Identifier: Apache-2.0
"""The words of an option -> the option as `--help` shows it; options of several commands -> their parameters."""

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

import typer

R = TypeVar("R")

NO_VALUE = ""
"""The metavar of a switch."""


def option(*names: str, text: str, default: str = "", panel: str | None = None, **settings: Any) -> Any:
    """Make an option whose default is decided elsewhere, and stated here.

    Args:
        names: with their dashes; without any: the parameter's own name.
        text: what the option sets, with its unit and range.
        default: the default in words; empty: not worth stating.
        panel: the heading of the option in the help.
        settings: further arguments of `typer.Option`.
    """
    words = f"{text} [dim]\\[default: {default}][/dim]" if default else text
    return typer.Option(*names, help=words, show_default=False, rich_help_panel=panel, **settings)


def parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    """Make the parameter of an option, given by its name only."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def with_parameters(
    command: Callable[..., R], called: Callable[..., R], parameters: Iterable[inspect.Parameter], instead_of: str = ""
) -> Callable[..., R]:
    """Make a command for typer that has further parameters in the place of one that it has now.

    Args:
        command: gives its name, its docstring and its other parameters.
        called: called with the values of all parameters by name.
        parameters: the further ones; they come last in the help.
        instead_of: the name of the parameter that typer shall not see.
    """

    @wraps(command)
    def wrapper(**values: Any) -> R:
        return called(**values)

    own = [each for each in inspect.signature(command).parameters.values() if each.name != instead_of]
    wrapper.__signature__ = inspect.Signature([*own, *parameters])  # type: ignore[attr-defined]
    return wrapper
