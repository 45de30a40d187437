# SPDX-License-Identifier: Apache-2.0
"""What docs/vae.md shows and names is there: pictures, tables, lines of code, names, commands."""

import ast
import functools
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import typer

import latentwire_client
import latentwire_lab
import latentwire_lab.statistics
from latentwire_cli import app
from latentwire_codec.checkpoints.folder import bundled_names
from latentwire_codec.networks import vector_vae
from latentwire_core.kinds import LatentKind
from latentwire_core.quality import NAMES as QUALITIES
from latentwire_lab.faces import NAMES as FACE_ATTRIBUTES
from latentwire_train.config import TrainingConfig
from latentwire_train.recipes import recipe_names

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "vae.md"
TEXT = PAGE.read_text(encoding="utf-8")
PICTURES = PAGE.parent / "images" / "vae"
QUOTES = re.findall(r"```python\n# (\S+), (\w+)\n(.*?)```", TEXT, re.DOTALL)
# Blocks and formulas apart, what stands between backticks.
NAMES = sorted(set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```|\$\$.*?\$\$", "", TEXT, flags=re.DOTALL))))


def source_of(path: Path, name: str) -> str:
    """Return the source of a function, method or class of a module."""
    text = path.read_text(encoding="utf-8")
    kinds = (ast.FunctionDef, ast.ClassDef)
    (found,) = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds) and node.name == name]
    source = ast.get_source_segment(text, found)
    assert source is not None
    return source


def test_every_relative_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT)
    assert len(links) > 10
    assert not [link for link in links if not (PAGE.parent / link).exists()]


def test_every_picture_is_shown_and_small() -> None:
    shown = set(re.findall(r"!\[[^\]]+\]\(images/vae/([^)]+)\)", TEXT))
    kept = {path.name: path.stat().st_size for path in PICTURES.iterdir() if path.suffix in (".png", ".gif")}
    assert shown == set(kept)
    assert max(size for name, size in kept.items() if name.endswith(".png")) < 250_000
    assert max(size for name, size in kept.items() if name.endswith(".gif")) < 400_000
    assert sum(kept.values()) < 1_800_000


@pytest.mark.parametrize("name", [path.stem for path in sorted(PICTURES.glob("*.md"))])
def test_a_table_is_the_one_that_the_command_wrote(name: str) -> None:
    table = (PICTURES / f"{name}.md").read_text(encoding="utf-8")
    assert f"<!-- `python -m benchmarks.latent_space` prints this table: images/vae/{name}.md -->\n{table}" in TEXT


@pytest.mark.parametrize(("path", "name", "lines"), QUOTES, ids=[f"{path}:{name}" for path, name, _ in QUOTES])
def test_a_quoted_line_of_code_is_in_the_function_that_is_named(path: str, name: str, lines: str) -> None:
    source = {line.strip() for line in source_of(ROOT / path, name).splitlines()}
    assert not [line for line in lines.splitlines() if line.strip() not in source]


def test_the_lines_that_make_a_vae_are_quoted() -> None:
    assert {"reparameterize", "kl_divergence", "quantization_noise", "forward", "to_scaled"} <= {
        n for _, n, _ in QUOTES
    }


# Words that stand for a value, not for a name of Python.
VALUES = {".lat", *bundled_names(), *recipe_names(), *FACE_ATTRIBUTES, *LatentKind, *QUALITIES}
MODULES = (latentwire_client, latentwire_lab, latentwire_lab.statistics, vector_vae)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in VALUES])
def test_a_name_of_code_exists(name: str) -> None:
    section, _, key = name.partition(".")
    settings = TrainingConfig().as_dict()
    if name.startswith("latentwire "):
        check_command(name.split())
    elif name.startswith("--"):
        check_command(["latentwire", "train", *name.split()])
    elif name.startswith("python -m "):
        assert importlib.util.find_spec(f"{name.split()[2]}.__main__")
    elif section in settings:
        assert key in settings[section]
    else:
        assert any(attribute(module, name) is not None for module in MODULES)


def attribute(module: object, name: str) -> object | None:
    """Map a dotted name to what it means in a module."""
    return functools.reduce(lambda found, part: getattr(found, part, None), name.split("."), module)


def check_command(words: list[str]) -> None:
    """Check that a command and its options exist; what is in capitals stands for something."""
    command: Any = typer.main.get_command(app)
    for word in words[1:]:
        if hasattr(command, "commands"):
            assert word in command.commands
            command = command.commands[word]
    options = {spelling for parameter in command.params for spelling in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options
