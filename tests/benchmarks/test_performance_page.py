# SPDX-License-Identifier: Apache-2.0
"""The commands and options of docs/performance.md exist."""

import re
import shlex
from pathlib import Path

import pytest

from benchmarks.serving.__main__ import parser as serving
from benchmarks.serving.forms import FORMS
from benchmarks.throughput.__main__ import parser as throughput

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
TEXT = PAGE.read_text(encoding="utf-8")
PARSERS = {"benchmarks.throughput": throughput, "benchmarks.serving": serving}
COMMANDS = re.findall(r"^python -m (\S+)([^#\n]*)", TEXT, re.MULTILINE)


def test_every_benchmark_of_speed_has_a_command() -> None:
    assert {name for name, _ in COMMANDS} == set(PARSERS)


@pytest.mark.parametrize(("name", "arguments"), COMMANDS, ids=[f"{name}{rest}".strip() for name, rest in COMMANDS])
def test_a_command_is_understood(name: str, arguments: str) -> None:
    PARSERS[name]().parse_args(shlex.split(arguments))


def test_every_option_and_form_exists() -> None:
    known = "".join(parser().format_help() for parser in PARSERS.values())
    options = set(re.findall(r"`(--[a-z-]+)", TEXT))
    assert len(options) > 5
    assert not [option for option in options if not re.search(rf"{option}\b", known)]
    assert set(re.findall(r"`((?:en|de)code-[a-z]+)`", TEXT)) <= set(FORMS)
