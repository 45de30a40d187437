# SPDX-License-Identifier: Apache-2.0
"""A face's description -> its colours."""

import colorsys
from dataclasses import dataclass

import numpy as np

from latentwire_lab.faces.canvas import Colour
from latentwire_lab.faces.face import Face, pick

_SKIN = ((255, 232, 217), (247, 212, 188), (229, 180, 143), (203, 146, 105), (163, 107, 73), (118, 74, 52))
_HAIR = {
    "Black_Hair": ((26, 23, 29), (50, 44, 50)),
    "Brown_Hair": ((86, 51, 33), (128, 80, 48)),
    "Blond_Hair": ((214, 168, 88), (245, 212, 138)),
    "Gray_Hair": ((150, 152, 158), (222, 222, 222)),
}
# Copper, ginger, plum, teal, rose.
_DYES = ((178, 74, 36), (214, 104, 44), (118, 52, 112), (38, 116, 122), (216, 112, 136))
_RING = (
    (222, 98, 84), (236, 142, 84), (240, 190, 98), (164, 184, 106), (86, 166, 138),
    (78, 160, 190), (92, 124, 196), (142, 112, 188), (204, 108, 152),
)  # fmt: skip
_STUBBLE = ((44, 36, 36), (92, 62, 44), (128, 124, 124))
_IRIS = ((62, 40, 28), (96, 64, 38), (112, 112, 56), (72, 116, 88), (74, 122, 160), (104, 120, 132))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Mix two colours, with `share` of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def ramp(colours: tuple[Colour, ...], place: float) -> Colour:
    """Map colours on a line and a place on it, 0..1, to the colour there."""
    at = min(max(place, 0.0), 1.0) * (len(colours) - 1)
    below = min(int(at), len(colours) - 2)
    return mix(colours[below], colours[below + 1], at - below)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Map hue (any real number, 1 is once round), saturation and value, 0..1, to a colour."""
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(hue % 1, saturation, value))
    return red, green, blue


def tint(place: float, light: float) -> Colour:
    """Map a place on a ring of colours (any real number, 1 is once round) and -1 (dark) to 1 (white) to a colour."""
    colour = ramp((*_RING, _RING[0]), place % 1)
    return mix(colour, (252, 248, 240), light) if light > 0 else mix(colour, (28, 26, 48), -light)


def darker(colour: Colour, share: float) -> Colour:
    """Return a colour in shadow, a little cooler and more saturated."""
    return mix(colour, (round(colour[0] * 0.35), round(colour[1] * 0.2), round(colour[2] * 0.28)), share)


def lighter(colour: Colour, share: float) -> Colour:
    """Return a colour in the light."""
    return mix(colour, (255, 246, 230), share)


def brightness(colour: Colour) -> float:
    """Map a colour to its brightness, 0..255 (Rec. 601)."""
    return float(np.dot(colour, (0.299, 0.587, 0.114)))


@dataclass(frozen=True)
class Palette:
    """The colours that several parts of a face share."""

    skin: Colour  # the skin in even light
    shadow: Colour  # the skin in shadow
    hair: Colour  # the hair of the head
    beard: Colour  # brows and beard, always different from the skin
    lips: Colour  # the lips, with or without lipstick
    iris: Colour  # the iris of the eyes

    @classmethod
    def of(cls, face: Face) -> "Palette":
        """Map a face to its colours."""
        skin = ramp(_SKIN, face.level("Pale_Skin"))
        skin = mix(skin, mix((214, 190, 140), (236, 150, 140), face.skin_red), 0.08)
        hair = pick(_DYES, face.hair_dye)
        if "Bald" in face:
            hair = pick(_STUBBLE, face.hair_dye)
        for name, (dark, light) in _HAIR.items():
            if name in face:
                hair = mix(dark, light, face.level(name))
        beard = darker(hair, 0.3)
        while abs(brightness(beard) - brightness(skin)) < 65:
            beard = darker(beard, 0.2)
        natural = mix(darker(skin, 0.12), (198, 92, 88), 0.38)
        paint = hsv(0.92 + 0.09 * face.lip_hue, 0.88, 0.86)
        lips = mix(natural, paint, face.level("Wearing_Lipstick"))
        return cls(skin, darker(skin, 0.3), hair, beard, lips, ramp(_IRIS, face.iris))
