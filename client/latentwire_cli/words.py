# SPDX-License-Identifier: Apache-2.0
"""The words of an option -> the option as `--help` shows it."""

from typing import Any

import typer

NO_VALUE = ""
"""The metavar of a switch."""


def option(*names: str, text: str, default: str = "", panel: str | None = None, **settings: Any) -> Any:
    """Make an option whose default is decided elsewhere, and stated here.

    Args:
        names: with their dashes; none: the parameter's own.
        text: what it sets, the unit, the range.
        default: in words; empty: none worth stating.
        panel: the heading that it stands under.
        settings: of `typer.Option`.
    """
    words = f"{text} [dim]\\[default: {default}][/dim]" if default else text
    return typer.Option(*names, help=words, show_default=False, rich_help_panel=panel, **settings)
