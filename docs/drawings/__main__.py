# SPDX-License-Identifier: Apache-2.0
"""Draw docs/drawings/*.svg again: `python -m docs.drawings`."""

from pathlib import Path

from docs.drawings.house import house
from docs.drawings.place import place
from docs.drawings.strip import strip
from docs.drawings.ways import decode, encode

DRAWINGS = {"house": house, "encode": encode, "decode": decode, "place": place, "strip": strip}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (Path(__file__).parent / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
