# SPDX-License-Identifier: Apache-2.0
"""The options of `latentwire serve` -> tables in Markdown, for the documentation and the test that compares it.

`python -m latentwire_cli.options_page` prints them.
"""

from collections.abc import Iterator
from itertools import groupby

from latentwire_cli.commands.serve import serve_options
from latentwire_server.options import Option


def serve_tables() -> str:
    """Return a heading and a table for each panel of the help: flag, variable, default, meaning with the range."""
    panels = list(dict.fromkeys(each.panel for each in serve_options().values()))
    ordered = sorted(serve_options().values(), key=lambda each: panels.index(each.panel))
    return "\n".join(
        line for panel, options in groupby(ordered, key=lambda each: each.panel) for line in _table(panel, options)
    )


def _table(panel: str, options: Iterator[Option]) -> Iterator[str]:
    yield f"### {panel}\n"
    yield "| Flag and variable | Default | Meaning |"
    yield "|---|---|---|"
    for each in options:
        flag = f"{each.flag} {each.metavar}".strip()
        meaning = each.help.replace("|", "\\|")
        yield f"| `{flag}`<br>`{each.variable}` | {each.default} | {meaning} |"
    yield ""


if __name__ == "__main__":
    print(serve_tables())
