# SPDX-License-Identifier: Apache-2.0
"""The site builds strictly and loads nothing from elsewhere; its drawings are what their script draws."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.drawings.__main__ import DRAWINGS
from tests.docs.pages import ROOT


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_the_one_that_its_script_draws(name: str) -> None:
    assert (ROOT / "docs" / "drawings" / f"{name}.svg").read_text(encoding="utf-8") == DRAWINGS[name]().svg()


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")]
    assert len(pages) > 15
    loaded = [
        tag
        for page in pages
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page)
        if re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag)
    ]
    assert not loaded
