# SPDX-License-Identifier: Apache-2.0
"""Print the benchmarks, one line each: `python -m benchmarks`."""

import ast
from pathlib import Path

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
    """Print the list."""
    found = benchmarks()
    width = max(map(len, found))
    for name, line in found.items():
        print(f"{name:{width}}  {line}")
    print("\npython -m benchmarks.NAME --help lists the options of a benchmark")


if __name__ == "__main__":
    main()
