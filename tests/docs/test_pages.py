# SPDX-License-Identifier: Apache-2.0
"""What the pages say is so: Python blocks print what they claim, command lines work, links lead somewhere."""

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from latentwire_cli import app, main
from tests.docs.pages import NAMES, ROOT, anchors, blocks, command_lines, links

PYTHON = [
    pytest.param(block, id=f"{name}: {block.splitlines()[0]}") for name in NAMES for block in blocks(name, "python")
]
LINES = {(" ".join(words)): words for name in NAMES for words in command_lines(name)}
QUICK = ("encode", "decode", "compress", "decompress", "inspect", "roundtrip", "info", "health")
"""Commands that are run, not only understood: they take seconds."""


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_leads_somewhere(name: str) -> None:
    for link in links(name):
        file, _, anchor = link.partition("#")
        path = (ROOT / name).parent / file
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.parametrize("block", PYTHON)
def test_a_python_block_runs_and_prints_what_it_says(block: str, servers: Callable[[str], str], desk: Path) -> None:
    program = servers(block)
    if "tritonclient" in block:
        # Its messages and those of other packages cannot be in one process.
        printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    else:
        with contextlib.redirect_stdout(io.StringIO()) as captured:
            exec(compile(program, "page", "exec"), {})
        printed = captured.getvalue()
    claimed = re.findall(r"^\s*print\(.*\n\s*# (.*)$", block, re.MULTILINE)
    assert printed.splitlines() == claimed
    if "encode_stream" in block:
        assert [path.name for path in (desk / "latents").iterdir()] == ["good.safetensors"]


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_is_understood(line: str, desk: Path) -> None:
    command: Any = typer.main.get_command(app)
    words = list(LINES[line])
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


@pytest.mark.parametrize("name", [name for name in NAMES if command_lines(name)])
def test_the_quick_command_lines_of_a_page_run_one_after_the_other(
    name: str, target: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LATENTWIRE_SERVER", target)
    (desk / "photos" / "broken.jpg").unlink()
    for words in command_lines(name):
        if words[0] in QUICK:
            # One iteration shows as well as thirty that the line works.
            status = main(
                ["1" if before == "--refine" else word for before, word in zip(["", *words], words, strict=False)]
            )
            assert status == 0, (words, capsys.readouterr().err)
