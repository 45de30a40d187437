# SPDX-License-Identifier: Apache-2.0
"""(seed, n) -> the complete description of a drawn face: its attributes of CelebA, and its other features.

Behind each attribute is a level, a continuous number such as the opening of the eyes. The levels of faces with and
without an attribute lie in two ranges with a gap between them, so that each label is clear. Attributes are independent
of one another, apart from these couplings (`unless` in the table):

    Bald                     has no hair: neither Bangs, nor a colour, nor Straight_Hair or Wavy_Hair
    Gray_Hair                never with Young
    *_Hair (colours)         at most one; a face that is not bald and has none is red-haired or dyed
    Straight_Hair, Wavy_Hair at most one; a face that is not bald and has none has curls
    Wearing_Lipstick         never with Mustache or Goatee, which would hide it

There is no attribute Male: whatever a face wears or grows says nothing about the rest of it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from latentwire_core.draws import Draws

T = TypeVar("T")
Range = tuple[float, float]


@dataclass(frozen=True)
class Attribute:
    """One of CelebA's attributes as it is drawn."""

    name: str  # CelebA's name
    rate: float  # share of all faces that have the attribute
    absent: Range  # lowest and highest level of a face without the attribute
    present: Range  # lowest and highest level of a face with the attribute; the two ranges do not touch
    unless: tuple[str, ...] = ()  # names of earlier attributes that exclude this attribute
    allowed: float = 1.0  # share of all faces without an excluding attribute

    def level(self, present: bool, strength: float) -> float:
        """Map presence and a strength from 0 (least) to 1 (most) to the level."""
        low, high = self.present if present else self.absent
        return low + (high - low) * strength


_OFF = (0.0, 0.0)
# fmt: off
ATTRIBUTES = (                                                     # the level is
    Attribute("Bald", 0.15, _OFF, (1.0, 1.0)),                     # 1 or 0
    Attribute("Bangs", 0.30, _OFF, (0.8, 1.0), ("Bald",), 0.85),   # their length
    Attribute("Big_Lips", 0.40, (0.5, 0.7), (1.4, 1.75)),         # thickness, in that of the average
    Attribute("Big_Nose", 0.40, (0.65, 0.85), (1.3, 1.55)),        # size, in that of the average
    Attribute("Bushy_Eyebrows", 0.40, (0.045, 0.06), (0.13, 0.17)),  # thickness
    Attribute("Eyeglasses", 0.30, _OFF, (0.8, 1.0)),               # the frame's thickness
    Attribute("Goatee", 0.20, _OFF, (0.75, 1.0)),                  # size
    Attribute("Mouth_Slightly_Open", 0.40, _OFF, (0.12, 0.19)),    # the gap between the lips
    Attribute("Mustache", 0.20, _OFF, (0.7, 1.0)),                 # size
    Attribute("Narrow_Eyes", 0.35, (0.9, 1.1), (0.38, 0.5)),       # opening, in that of the average
    Attribute("Oval_Face", 0.40, (0.0, 0.15), (0.85, 1.0)),        # from broad with a square jaw to long and tapering
    Attribute("Pale_Skin", 0.25, (0.3, 1.0), (0.0, 0.1)),          # darkness of the skin
    Attribute("Pointy_Nose", 0.40, (0.0, 0.15), (0.85, 1.0)),      # from a round tip to a sharp one
    Attribute("Rosy_Cheeks", 0.30, _OFF, (0.8, 1.0)),              # redness
    Attribute("Smiling", 0.50, (-0.15, 0.1), (0.6, 1.0)),         # how far the corners of the mouth are drawn up
    Attribute("Wearing_Earrings", 0.30, _OFF, (0.8, 1.0)),         # size
    Attribute("Wearing_Hat", 0.25, _OFF, (0.9, 1.0)),              # size
    Attribute("Wearing_Lipstick", 0.256, _OFF, (0.8, 1.0), ("Goatee", "Mustache"), 0.64),  # opacity
    Attribute("Wearing_Necktie", 0.25, _OFF, (0.9, 1.1)),          # width
    Attribute("Young", 0.50, (0.8, 1.0), (0.0, 0.1)),              # depth of the lines in the face
    Attribute("Gray_Hair", 0.17, _OFF, (0.0, 1.0), ("Bald", "Young"), 0.425),  # of a colour: from dark to light
    Attribute("Black_Hair", 0.20, _OFF, (0.0, 1.0), ("Bald", "Gray_Hair"), 0.68),
    Attribute("Blond_Hair", 0.20, _OFF, (0.0, 1.0), ("Bald", "Gray_Hair", "Black_Hair"), 0.48),
    Attribute("Brown_Hair", 0.20, _OFF, (0.0, 1.0), ("Bald", "Gray_Hair", "Black_Hair", "Blond_Hair"), 0.28),
    Attribute("Straight_Hair", 0.30, _OFF, (0.0, 1.0), ("Bald",), 0.85),       # gloss
    Attribute("Wavy_Hair", 0.30, _OFF, (0.7, 1.0), ("Bald", "Straight_Hair"), 0.55),  # height of the waves
)
# fmt: on
"""In the order in which they are drawn."""

NAMES = tuple(sorted(attribute.name for attribute in ATTRIBUTES))
"""In the order of CelebA's label file."""


def random_attributes(draws: Draws) -> tuple[frozenset[str], tuple[float, ...]]:
    """Map random numbers, two for each attribute, to a face's attributes and its strength in each of `ATTRIBUTES`."""
    has: set[str] = set()
    strengths = []
    for attribute in ATTRIBUTES:
        chosen, strength = draws.uniform(), draws.uniform()
        if not has.intersection(attribute.unless) and chosen < attribute.rate / attribute.allowed:
            has.add(attribute.name)
        strengths.append(strength)
    return frozenset(has), tuple(strengths)


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
    """Map the seed of a set and a number, both 0..2**64-1, to a face, the same in every process and version of numpy.

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
