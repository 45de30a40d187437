# SPDX-License-Identifier: Apache-2.0
"""The README's Python blocks run as they stand, and print what they say they print."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_picture_comes_within_ten_lines_and_code_with_output_within_thirty() -> None:
    lines = README.splitlines()
    assert any(line.startswith("![") for line in lines[:10])
    assert "client.decode" in "\n".join(lines[:30])
    assert "# Latents(" in "\n".join(lines[:30])


def test_every_relative_link_leads_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", README):
        assert (Path(__file__).parents[1] / link).exists(), link


@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0] for block in BLOCKS])
def test_a_python_block_runs_and_prints_what_it_says(
    block: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(data.chelsea()).save("cat.png")
    Path("photos").mkdir()
    Image.fromarray(data.chelsea()[:64, :64]).save("photos/good.jpg")
    Path("photos/broken.jpg").write_bytes(b"\xff\xd8 broken")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.replace("localhost:50051", target), "README.md", "exec"), {})
    claimed = re.findall(r"^\s*print\(.*\n\s*# (.*)$", block, re.MULTILINE)
    assert printed.getvalue().splitlines() == claimed
    if "encode_stream" in block:
        assert [path.name for path in Path("latents").iterdir()] == ["good.safetensors"]
