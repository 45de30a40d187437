# SPDX-License-Identifier: Apache-2.0
"""The tables of the options of `serve`, for the documentation."""

import subprocess
import sys

from latentwire_cli.commands.serve import serve_options
from latentwire_cli.options_page import serve_tables


def test_there_is_a_row_for_every_option_under_the_heading_of_its_panel() -> None:
    panel = ""
    rows: dict[str, str] = {}
    for line in serve_tables().splitlines():
        if line.startswith("### "):
            panel = line.removeprefix("### ")
        elif line.startswith("| `"):
            rows[line] = panel
    assert len(rows) == len(serve_options())
    for option in serve_options().values():
        (row,) = [row for row in rows if f"`{option.variable}`" in row]
        assert rows[row] == option.panel
        assert row.startswith(f"| `{option.flag}")
        assert option.help in row


def test_a_range_and_a_default_stand_in_the_table() -> None:
    text = "Images waiting or at work, of all clients, 1..1048576."
    assert f"| `--max-queue IMAGES`<br>`LATENTWIRE_MAX_QUEUE` | 256 | {text} |" in serve_tables().splitlines()


def test_the_module_prints_the_tables() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "latentwire_cli.options_page"], capture_output=True, text=True, check=True
    )
    assert done.stdout == serve_tables() + "\n"
