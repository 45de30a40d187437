# SPDX-License-Identifier: Apache-2.0
"""What `import latentwire_client` offers: every name is there, in order, and documented."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import latentwire_client

PACKAGE = Path(latentwire_client.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
# Nobody makes these: a client returns them.
KEPT_INSIDE = {
    "Stream",
    "AsyncStream",
}


def public(tree: ast.Module) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The public functions and classes of a module, and the public methods of the latter."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(ast.Module(node.body, []))


def test_the_names_are_sorted_and_there_is_each() -> None:
    names = latentwire_client.__all__
    assert names == sorted(set(names))
    for name in names:
        assert getattr(latentwire_client, name) is not None


def test_a_star_import_gives_just_these() -> None:
    found: dict[str, object] = {}
    exec("from latentwire_client import *", found)
    assert set(found) - {"__builtins__"} == set(latentwire_client.__all__)


@pytest.mark.parametrize("module", ["aio", "client", "config", "errors", "info", "streams"])
def test_every_public_class_of_a_public_module_is_exported(module: str) -> None:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}
    assert classes <= set(latentwire_client.__all__) | KEPT_INSIDE


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_name_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    overloaded = "overload"
    bare = [
        node.name
        for node in public(tree)
        if not ast.get_docstring(node)
        and not any(isinstance(each, ast.Name) and each.id == overloaded for each in node.decorator_list)
    ]
    assert bare == []


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert latentwire_client.__version__ == version("latentwire")


def test_importing_the_client_and_its_fake_server_loads_no_torch() -> None:
    script = (
        "import sys, latentwire_client.testing; sys.exit('torch' in sys.modules or 'latentwire_codec' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
