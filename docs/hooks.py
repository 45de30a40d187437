# SPDX-License-Identifier: Apache-2.0
"""Pages as they are read in the repository -> pages of the site: links out of docs/, and formulas."""

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]+)\)")
INLINE = re.compile(r'<span class="arithmatex">\\\((.+?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.+?)\\\]\s*</div>', re.DOTALL)
ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace links to files of the repository by their words: the site does not hold these files.

    Raises:
        PluginError: a linked file does not exist.
    """
    here = ROOT / "docs" / Path(page.file.src_uri).parent

    def words(link: re.Match[str]) -> str:
        target = (here / link[2]).resolve()
        if not target.exists():
            raise PluginError(f"{page.file.src_uri} links to {link[2]}, which does not exist")
        return link[0] if target.is_relative_to(ROOT / "docs") else link[1]

    return LINK.sub(words, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Turn formulas into MathML, which browsers draw without a script."""
    html = INLINE.sub(lambda found: convert(_plain(found[1])), html)
    return BLOCK.sub(lambda found: convert(_plain(found[1]), display="block"), html)


def _plain(formula: str) -> str:
    for entity, character in ENTITIES:
        formula = formula.replace(entity, character)
    return formula
