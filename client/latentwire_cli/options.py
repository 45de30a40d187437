# SPDX-License-Identifier: Apache-2.0
"""The words of an option -> the option as `--help` shows it; options of several commands -> their parameters."""

import inspect
from collections.abc import Callable, Collection, Iterable
from dataclasses import MISSING, fields
from functools import wraps
from typing import Any, TypeVar, get_type_hints

import typer

from latentwire_core.noise import check_seed

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


def switch(name: str, text: str, **settings: Any) -> Any:
    """Make an option without a value; see `option`."""
    return option(name, text=text, metavar=NO_VALUE, **settings)


def check_seed_option(seed: int) -> None:
    """Raise BadParameter where `--seed` is no seed of noise."""
    try:
        check_seed(seed)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--seed") from None


def parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    """Make the parameter of an option, given by its name only."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def with_options(
    group: type, name: str, omitted: Collection[str] = ()
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command the options of a dataclass in the place of its parameter `name`.

    Args:
        group: the dataclass, whose fields are annotated with their options.
        name: the parameter that gets an instance of it.
        omitted: the names of fields that are no options of the command.
    """
    hints = get_type_hints(group, include_extras=True)
    chosen = [field for field in fields(group) if field.name not in omitted]
    parameters = [
        parameter(field.name, hints[field.name], inspect.Parameter.empty if field.default is MISSING else field.default)
        for field in chosen
    ]

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        def grouping(**values: Any) -> R:
            given = {field.name: values.pop(field.name) for field in chosen}
            return command(**values, **{name: group(**given)})

        return with_parameters(command, grouping, parameters, instead_of=name)

    return decorate


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
