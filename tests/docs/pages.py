# SPDX-License-Identifier: Apache-2.0
"""A page -> its blocks of Python, its command lines, its links."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = (
    "README.md",
    "docs/index.md",
    "docs/quickstart.md",
    "docs/client.md",
    "docs/server.md",
    "docs/diffusers.md",
    "docs/compression.md",
    "docs/training.md",
    "docs/architecture.md",
    "docs/glossary.md",
    "docs/protocol.md",
    "docs/limits.md",
    "examples/README.md",
)
"""Pages for users. docs/vae.md has tests of its own, and docs/bitstream.md a decoder."""


def text_of(name: str) -> str:
    """Return the text of a page."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """Return the blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text_of(name), re.DOTALL)


def command_lines(name: str) -> list[list[str]]:
    """Return the words of each `latentwire` command in the shell blocks of a page, without its program."""
    lines = "\n".join(blocks(name, "bash")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [words[1:] for words in commands if words and words[0] == "latentwire"]


def links(name: str) -> list[str]:
    """Return the relative links of a page, pictures too, with what follows their `#`."""
    return re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", text_of(name))


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-") for heading in headings}
