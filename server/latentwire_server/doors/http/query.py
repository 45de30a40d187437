# SPDX-License-Identifier: Apache-2.0
"""The query of a URL -> numbers, flags and words, or a refusal that names the parameter."""

import math
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import parse_qs

from latentwire_server.errors import InvalidRequest

T = TypeVar("T")

MOST_DIGITS = 20  # of a seed of 64 bits


class Query:
    """The parameters of a request. Where one value is meant and several are sent, the last counts.

    The methods raise InvalidRequest where a value is not of the kind that is asked for.

    Args:
        text: the part of a URL behind the `?`.
    """

    def __init__(self, text: str) -> None:
        self._values = parse_qs(text, keep_blank_values=True)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def known(self, name: str, table: Mapping[str, T], default: str | None = None) -> T:
        """Look a word up in a table; without a default the parameter must be there."""
        text = self._last(name, default)
        accepted = ", ".join(table)
        if text is None:
            raise InvalidRequest(name, f"there is no {name}; send one of {accepted}")
        if text not in table:
            raise InvalidRequest(name, f"{name} is {text}; accepted here: {accepted}")
        return table[text]

    def flag(self, name: str) -> bool:
        """Return a flag, written `true` or `false` in any case; False where it is missing."""
        text = self._last(name, "false") or ""
        if text.lower() not in ("true", "false"):
            raise InvalidRequest(name, f"{name} is {text}; it must be true or false")
        return text.lower() == "true"

    def number(self, name: str) -> float | None:
        """Return a finite number; None where it is missing."""
        text = self._last(name)
        if text is None:
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InvalidRequest(name, f"{name} is {text}; it must be a finite number")
        return number

    def whole(self, name: str) -> int | None:
        """Return a whole number from 0; None where it is missing."""
        return self.wholes(name)[-1] if name in self else None

    def wholes(self, name: str) -> list[int]:
        """Return whole numbers from 0, in the order in which they were sent."""
        texts = self._values.get(name, [])
        for text in texts:
            # int() would also take "1_0", " 1" and digits of other scripts, and long texts for a long time.
            if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
                raise InvalidRequest(
                    name, f"{name} is {text}; it must be a whole number, 0 or more, of at most {MOST_DIGITS} digits"
                )
        return [int(text) for text in texts]

    def _last(self, name: str, default: str | None = None) -> str | None:
        return self._values[name][-1] if name in self else default
