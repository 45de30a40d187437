# SPDX-License-Identifier: Apache-2.0
"""Random numbers -> the attributes of CelebA that a drawn face has, and their strengths.

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

from dataclasses import dataclass

from latentwire_core.draws import Draws

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
