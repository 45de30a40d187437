# SPDX-License-Identifier: Apache-2.0
"""(seed, n) -> the complete description of a drawn face."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from latentwire_core.draws import Draws
from latentwire_lab.faces.attributes import ATTRIBUTES, random_attributes

T = TypeVar("T")

_FACE = 4  # a purpose of `Draws`
_INDEX = {attribute.name: k for k, attribute in enumerate(ATTRIBUTES)}


def _between(low: float, high: float) -> Any:
    """Map a range to a field whose number is drawn evenly from the range."""
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True)
class Face:
    """The description of a face: with a size it decides every pixel of the picture.

    The labels state `attributes`. The fields from `yaw` on are independent of the attributes: pose, colours, shapes,
    light and surroundings. Heads are roughly aligned, as CelebA's are. Lengths are in half heights of the head, angles
    in radians, and numbers without a unit run from 0 to 1. A `kind` selects from a few equally likely shapes.

    Attributes:
        attributes: the names of the face's attributes.
        strengths: 0..1 for each of `ATTRIBUTES`: where its level lies within the range of its class.
    """

    attributes: frozenset[str]
    strengths: tuple[float, ...]

    yaw: float = _between(-0.36, 0.36)  # positive: turned to the right side of the picture
    pitch: float = _between(-0.1, 0.1)  # positive: looks up
    roll: float = _between(-0.12, 0.12)  # positive: tilted clockwise
    scale: float = _between(0.95, 1.04)
    shift_x: float = _between(-0.022, 0.022)  # in widths of the picture
    shift_y: float = _between(-0.014, 0.016)

    skin_red: float = _between(0, 1)  # from olive to ruddy
    head_width: float = _between(0.96, 1.04)
    jaw: float = _between(-0.03, 0.03)
    chin: float = _between(-0.03, 0.05)
    ear_size: float = _between(0.85, 1.15)
    freckles: float = _between(-1.5, 1)  # below 0: none
    eye_size: float = _between(0.92, 1.1)
    eye_gap: float = _between(-0.02, 0.03)
    eye_slant: float = _between(-0.03, 0.06)
    lashes: float = _between(0, 1)
    iris: float = _between(0, 1)
    gaze_x: float = _between(-1, 1)
    gaze_y: float = _between(-1, 1)
    brow_height: float = _between(-0.02, 0.04)
    brow_arch: float = _between(0.02, 0.09)
    brow_slant: float = _between(-0.045, 0.012)
    nose_length: float = _between(-0.03, 0.03)
    mouth_width: float = _between(0.9, 1.12)
    mouth_height: float = _between(-0.025, 0.025)
    lopsided: float = _between(-0.016, 0.016)  # the mouth's corners
    lip_hue: float = _between(0, 1)

    hair_length: float = _between(0, 1)
    hair_volume: float = _between(0, 1)
    hair_part: float = _between(-0.42, 0.42)
    hairline: float = _between(-0.05, 0.05)
    hair_dye: float = _between(0, 1)  # for hair without a named colour
    beard_cut: float = _between(0, 1)

    hat_kind: float = _between(0, 1)
    hat_hue: float = _between(0, 1)
    hat_light: float = _between(0, 1)
    glasses_kind: float = _between(0, 1)
    glasses_hue: float = _between(0, 1)
    earring_kind: float = _between(0, 1)
    earring_hue: float = _between(0, 1)
    tie_hue: float = _between(0, 1)
    tie_kind: float = _between(0, 1)
    clothes_kind: float = _between(0, 1)
    clothes_hue: float = _between(0, 1)
    clothes_light: float = _between(0, 1)
    shoulders: float = _between(0.92, 1.1)

    backdrop_kind: float = _between(0, 1)
    backdrop_hue: float = _between(0, 1)
    backdrop_contrast: float = _between(-0.12, 0.12)  # of its second hue
    backdrop_light: float = _between(0, 1)
    backdrop_angle: float = _between(-3.14159, 3.14159)
    light_x: float = _between(-1, 1)  # the side of the light
    light_warmth: float = _between(-1, 1)

    def __contains__(self, name: object) -> bool:
        return name in self.attributes

    def level(self, name: str) -> float:
        """Map an attribute's name to its level in this face; `ATTRIBUTES` states the unit.

        Raises:
            KeyError: there is no such attribute.
        """
        index = _INDEX[name]
        return ATTRIBUTES[index].level(name in self.attributes, self.strengths[index])

    def given(self, add: Collection[str] = (), remove: Collection[str] = ()) -> "Face":
        """Return the face with attributes added and removed; the caller keeps the couplings.

        Raises:
            KeyError: there is no such attribute.
        """
        unknown = {*add, *remove} - _INDEX.keys()
        if unknown:
            raise KeyError(f"no attribute is named {', '.join(sorted(unknown))}; ATTRIBUTES has them all")
        return replace(self, attributes=(self.attributes | set(add)) - set(remove))


def pick(options: Sequence[T], kind: float) -> T:
    """Choose one of the options by a kind, 0..1."""
    return options[min(int(kind * len(options)), len(options) - 1)]


def random_face(seed: int, n: int) -> Face:
    """Map a seed and a number to a face, the same in every process and version of numpy.

    Args:
        seed: seed of the set, 0 <= seed < 2**64.
        n: number of the face in the set, 0 <= n < 2**64.

    Raises:
        ValueError: a number is out of range.
    """
    draws = Draws(seed, _FACE, n)
    attributes, strengths = random_attributes(draws)
    numbers = {}
    for part in fields(Face):
        if "range" in part.metadata:
            low, high = part.metadata["range"]
            numbers[part.name] = low + (high - low) * draws.uniform()
    return Face(attributes, strengths, **numbers)
