# SPDX-License-Identifier: Apache-2.0
"""Print the benchmarks, one line each: `python -m benchmarks`."""

import ast
from pathlib import Path

from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parent


def benchmarks() -> dict[str, str]:
    """Map the name of each benchmark to the first line of its module, without importing it."""
    paths = [path for path in FOLDER.glob("*.py") if path.stem != "__main__"]
    found = {path.stem: path for path in paths} | {path.parent.name: path for path in FOLDER.glob("*/__main__.py")}
    documented = {
        name: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for name, path in sorted(found.items())
    }
    return {name: (text or "").partition("\n")[0] for name, text in documented.items()}


def main() -> None:
    """Print the table."""
    table = Table(title="python -m benchmarks.NAME --help", title_justify="left", box=None, show_header=False)
    for name, line in benchmarks().items():
        table.add_row(name, line)
    Console(markup=False, highlight=False).print(table)


if __name__ == "__main__":
    main()
