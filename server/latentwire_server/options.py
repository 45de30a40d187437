# SPDX-License-Identifier: Apache-2.0
"""One option of `latentwire serve`: its flag, variable, range and help, from which everything else about it is made."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from latentwire_server.errors import ServerError

T = TypeVar("T")

METADATA = "option"


@dataclass(frozen=True, kw_only=True)
class Option:
    """What the command, its documentation and the check of a configuration need to know about an option.

    Attributes:
        flag: such as `--max-queue`; of a switch with its opposite, `--oip/--no-oip`.
        text: what the option sets, with the unit; `{range}` stands for the range.
        panel: the heading of the option in the help.
        metavar: what stands for the value; empty: a switch.
        least: the smallest number; None: the value is not a number.
        most: the largest number; None: the value is not a number.
        choices: the words that the value can be; empty: any.
        repeatable: whether the flag can be given several times, and its variable holds words separated by spaces.
        default: the default in words; empty: not worth stating.
    """

    flag: str
    text: str
    panel: str
    metavar: str = ""
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    repeatable: bool = False
    default: str = ""

    @property
    def name(self) -> str:
        """The flag without its opposite."""
        return self.flag.partition("/")[0]

    @property
    def variable(self) -> str:
        """The environment variable that is read where the flag is not given."""
        return f"LATENTWIRE_{self.name.removeprefix('--').upper().replace('-', '_')}"

    @property
    def range(self) -> str:
        """The range of a number, such as `1..1024`."""
        return f"{self.least}..{self.most}"

    @property
    def help(self) -> str:
        """The text with its range."""
        return self.text.replace("{range}", self.range)

    def check(self, value: Any) -> None:
        """Check a value that is set.

        Raises:
            ServerError: it is out of the range, or none of the choices.
        """
        if self.least is not None and self.most is not None and not self.least <= value <= self.most:
            raise ServerError(f"{self.name} is {value}; it must be in {self.range}")
        if self.choices and value not in self.choices:
            raise ServerError(f"{self.name} is {value!r}; it must be one of {', '.join(self.choices)}")


def setting(
    value: T,
    usage: str,
    panel: str,
    text: str,
    within: tuple[float, float] | None = None,
    *,
    choices: tuple[str, ...] = (),
    repeatable: bool = False,
    default: str | None = None,
    shown: bool = True,
) -> T:
    """Make a field of a dataclass that is an option.

    Args:
        value: the default of the field.
        usage: the flag and what stands for its value, such as `--max-queue IMAGES`.
        panel: see `Option`, as for `text`, `choices` and `repeatable`.
        text: see `Option`.
        within: the range of a number, both ends included.
        choices: see `Option`.
        repeatable: see `Option`.
        default: the default in words; None: as the value says.
        shown: whether the representation of the dataclass shows the value.
    """
    flag, _, metavar = usage.partition(" ")
    least, most = within or (None, None)
    words = _in_words(value) if default is None else default
    option = Option(
        flag=flag, text=text, panel=panel, metavar=metavar, least=least, most=most, choices=choices,
        repeatable=repeatable, default=words,
    )  # fmt: skip
    made: T = field(default=value, repr=shown, metadata={METADATA: option})
    return made


def options_of(kind: type) -> Iterator[tuple[str, Option]]:
    """Yield the name of each field of a dataclass that is an option, with the option."""
    for each in fields(kind):
        if METADATA in each.metadata:
            yield each.name, each.metadata[METADATA]


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, int | str) else ""
