# SPDX-License-Identifier: Apache-2.0
"""The page of flags is the one that the table of options gives."""

from pathlib import Path

from latentwire_cli.options_page import serve_tables

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_the_page_of_flags_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8").endswith("\n\n" + serve_tables().rstrip() + "\n")
