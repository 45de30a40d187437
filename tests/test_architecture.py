# SPDX-License-Identifier: Apache-2.0
"""What the source tree promises as a whole: light imports, whole folders, short modules, one version."""

import ast
import io
import re
import subprocess
import sys
import sysconfig
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentwire_proto import __version__
from tests.mutation import EQUIVALENT, TARGETS, changes

ROOT = Path(__file__).parents[1]
PACKAGE_ROOTS = ("client", "codec", "proto", "server")
PACKAGES = {
    "client": ("latentwire_cache", "latentwire_client", "latentwire_cli", "latentwire_lab"),
    "codec": ("latentwire_core", "latentwire_data", "latentwire_codec", "latentwire_train"),
    "proto": ("latentwire_proto",),
    "server": ("latentwire_server",),
}
MAX_LINES = 400
MAX_MODULES = 14
LIBRARY_FACE = "latentwire_client"
# What the command needs and the client's library does not.
COMMAND_PACKAGES = {"latentwire_cli", "latentwire_lab", "rich", "typer"}
# What a machine that only talks to a server has no use for, and should not wait for.
MODEL_PACKAGES = {
    "diffusers",
    "latentwire_codec",
    "latentwire_server",
    "latentwire_train",
    "pytorch_msssim",
    "torch",
    "transformers",
}
SERVER_LIBRARIES = {"grpc_status", "prometheus_client", "pythonjsonlogger", "starlette", "uvicorn"}


def imported_by(*arguments: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter imports when it runs `arguments`."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    # Each import is a line `import time: <self> | <cumulative> | <module>`.
    modules = re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", result.stderr, re.MULTILINE)
    assert result.returncode == 0, result.stderr[-2000:]
    return {module.partition(".")[0] for module in modules}


def sources(*suffixes: str) -> list[Path]:
    """Return the hand-written files with one of `suffixes`, below the folders that hold code."""
    return [
        path
        for folder in (*PACKAGE_ROOTS, "benchmarks", "docs", "examples", "tests")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in suffixes and not path.stem.endswith(("_pb2", "_pb2_grpc"))
    ]


def test_importing_the_client_loads_no_model_package() -> None:
    packages = imported_by("-c", f"import {LIBRARY_FACE}")
    assert LIBRARY_FACE in packages
    assert not packages & (MODEL_PACKAGES | COMMAND_PACKAGES)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_command_line_answers_without_loading_a_model_package(option: str) -> None:
    packages = imported_by(str(Path(sysconfig.get_path("scripts")) / "latentwire"), option)
    assert LIBRARY_FACE in packages
    # The help of `serve` is made from the server's table of options, which needs none of the server's libraries.
    assert not packages & (MODEL_PACKAGES - {"latentwire_server"} | SERVER_LIBRARIES)


@pytest.mark.parametrize("conftest", ["tests.conftest", "tests.codec.conftest"])
def test_what_tests_share_loads_no_model_package(conftest: str) -> None:
    assert not imported_by("-c", f"import {conftest}") & MODEL_PACKAGES


@pytest.mark.parametrize("module", ["latentwire_codec", "latentwire_codec.images.files"])
def test_reading_images_loads_no_torch(module: str) -> None:
    packages = imported_by("-c", f"import {module}")
    assert "latentwire_codec" in packages
    assert not packages & {"torch", "diffusers"}


@pytest.mark.parametrize("module", ["latentwire_core.container", "latentwire_codec.lat.payload"])
def test_reading_latents_from_a_bitstream_loads_no_torch(module: str) -> None:
    packages = imported_by("-c", f"import {module}")
    assert "latentwire_core" in packages
    assert not packages & {"torch", "diffusers"}
    assert ("numba" in packages) is (module == "latentwire_codec.lat.payload")


@pytest.mark.parametrize("folder", PACKAGE_ROOTS)
def test_a_package_root_is_not_itself_a_package(folder: str) -> None:
    # With an `__init__.py` it would be importable as `proto` or `client`, names that others own.
    assert not (ROOT / folder / "__init__.py").exists()
    assert {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")} == set(PACKAGES[folder])


def test_every_module_is_short_enough_to_be_read_at_once() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(".py")
        if not path.is_relative_to(ROOT / "tests")
    }
    assert lengths
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_LINES}


def test_no_folder_holds_more_modules_than_one_can_keep_in_mind() -> None:
    modules = Counter(
        str(path.parent.relative_to(ROOT))
        for path in sources(".py")
        if not path.is_relative_to(ROOT / "tests") and path.name != "__init__.py"
    )
    assert modules
    assert not {folder: count for folder, count in modules.items() if count > MAX_MODULES}


def test_the_contracts_of_imports_have_one_exception() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    exceptions = [line for contract in contracts for line in contract.get("ignore_imports", [])]
    assert exceptions
    assert {line.partition(" -> ")[0].removesuffix(".*") for line in exceptions} == {"latentwire_client.diffusers"}


def test_the_modules_of_the_mutation_run_and_their_tests_are_there() -> None:
    assert not [path for module, tests in TARGETS.items() for path in (module, *tests) if not (ROOT / path).is_file()]


def test_each_equivalent_change_is_one_that_the_mutation_run_makes() -> None:
    made = {str(change) for path in {key.partition(":")[0] for key in EQUIVALENT} for change in changes(path)}
    assert EQUIVALENT
    assert not EQUIVALENT.keys() - made


def prose(path: Path) -> Iterator[str]:
    """Yield the docstrings and the comments of a file; lines of one comment are one."""
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        # A string on its own documents what stands before it.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value.strip()
    block, line_before = "", -1
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            words = token.string.lstrip("# ")
            if token.start[0] == line_before + 1 and block:
                block += f" {words}"
            else:
                yield block
                block = words
            line_before = token.start[0]
    yield block


def test_no_docstring_or_comment_begins_with_of_or_maps_to_nothing() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {words.partition(chr(10))[0]}"
        for path in sources(".py")
        for words in prose(path)
        if words.startswith("Of ") or re.search(r" -> (nothing|none)\b", words)
    ]
    assert not wrong


def test_every_source_file_begins_with_its_licence() -> None:
    marks = {".py": "# ", ".proto": "// "}
    missing = [
        str(path.relative_to(ROOT))
        for path in sources(*marks)
        if not path.read_text(encoding="utf-8").startswith(f"{marks[path.suffix]}SPDX-License-Identifier: Apache-2.0\n")
    ]
    assert not missing


def test_the_changelog_has_an_entry_for_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE)


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version, date = re.search(r"^version: (\S+)\ndate-released: (\S+)$", citation, re.MULTILINE).groups()  # type: ignore[union-attr]
    assert version == __version__
    assert f"## [{version}] - {date}\n" in changelog
