# SPDX-License-Identifier: Apache-2.0
"""Checkouts of the trainers -> their own classes and functions, unmodified, without what their modules import.

The variable TRAINERS names a folder with the checkouts, each under its repository's name. What is run is the text of
the definitions in the checkout; where a definition needs a neighbour that is not installed, the test hands it in.
"""

import ast
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

CHECKOUTS = os.environ.get("TRAINERS", "")

slow_beside_trainers = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHECKOUTS, reason="TRAINERS names no folder with checkouts of the trainers: NOTHING IS RUN"),
]


def checkout(repository: str) -> Path:
    """Return the folder of a checkout; skip the test where there is none."""
    folder = Path(CHECKOUTS, repository)
    if not folder.is_dir():
        pytest.skip(f"no checkout of {repository} in {CHECKOUTS}: ITS READER IS NOT RUN")
    return folder


def definitions(file: Path, *names: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Run the definitions of these names (classes, functions, constants) from a file, with `given` as its globals."""
    with warnings.catch_warnings():
        # Some of the checkouts have escape sequences that Python warns of.
        warnings.simplefilter("ignore")
        tree = ast.parse(file.read_text(encoding="utf-8"))
    kept = [node for node in tree.body if _names(node) & set(names)]
    found = set().union(*map(_names, kept))
    assert found >= set(names), f"{file} has no {set(names) - found}"
    # Annotations name types of modules that are not imported.
    future = ast.parse("from __future__ import annotations").body
    module = ast.Module(body=[*future, *kept], type_ignores=[])
    space: dict[str, Any] = {"__name__": file.stem, **given}
    exec(compile(module, str(file), "exec"), space)
    return space


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()
