# SPDX-License-Identifier: Apache-2.0
"""A sketch -> its shoulders and clothes: shirts, a hood, a suit with a necktie."""

import math

import numpy as np

from latentwire_lab.faces.canvas import Colour, curve, flipped, mirrored, moved, path
from latentwire_lab.faces.face import Face, pick
from latentwire_lab.faces.palette import darker, hsv, lighter, tint
from latentwire_lab.faces.sketch import Sketch

_NECKLINES = {"tee": 1.30, "striped": 1.30, "v-neck": 1.52, "hoodie": 1.28, "shirt": 1.48, "suit": 1.30}
_TIE_HUES = (0.0, 0.58, 0.36, 0.78, 0.96, 0.12)


def _style(face: Face) -> str:
    return "suit" if "Wearing_Necktie" in face else pick(tuple(_NECKLINES)[:-1], face.clothes_kind)


def neckline(face: Face) -> float:
    """Map a face to the y down to which its neck is bare."""
    return _NECKLINES[_style(face)]


def _cloth(face: Face) -> Colour:
    """Map a face to the colour of its clothes; with a suit, the colour of the jacket."""
    if _style(face) == "suit":
        return tint(face.clothes_hue, 0.3 * face.clothes_light - 0.8)
    return tint(face.clothes_hue, 1.2 * face.clothes_light - 0.65)


def torso(sketch: Sketch) -> None:
    """Draw the shoulders, before the neck."""
    face, body, cloth = sketch.face, sketch.on_body(), _cloth(sketch.face)
    wide, side = face.shoulders, sketch.dark_side
    half = [
        (0.0, 1.0), (0.36 * wide, 1.06), (0.72 * wide, 1.24), (1.18 * wide, 1.42), (1.42 * wide, 1.75),
        (1.5 * wide, 2.6), (0.0, 2.7),
    ]  # fmt: skip
    shape = curve(mirrored(half))
    body.fill(shape, cloth)
    with body.inside(shape):
        if _style(face) == "striped":
            for y in np.arange(1.1, 2.2, 0.2):
                body.fill(np.array([(-2, y), (2, y), (2, y + 0.09), (-2, y + 0.09)]), lighter(cloth, 0.75))
        centre = sketch.body.place(np.array([(0.5 * side, 1.5)]))
        sketch.canvas.shade(0 if side > 0 else math.pi, darker(cloth, 0.5), 0.5, centre=centre, reach=body.unit)


def collar(sketch: Sketch) -> None:
    """Draw the collar or hood, and the necktie."""
    style, cloth, body = _style(sketch.face), _cloth(sketch.face), sketch.on_body()
    if style in ("tee", "striped"):
        line = path([(-0.42, 1.10), (-0.30, 1.26), (0, 1.335), (0.30, 1.26), (0.42, 1.10)])
        body.stroke(line, 0.09, darker(cloth, 0.3), ends=(0.8, 0.8))
        return
    if style == "suit":
        linen = tint(sketch.face.clothes_hue + 0.5, 0.85)
        body.fill(np.array([(-0.40, 1.06), (0.40, 1.06), (0.34, 1.4), (0, 2.2), (-0.34, 1.4)]), linen)
        _necktie(sketch)
    for side in (-1, 1):
        if style == "v-neck":
            line = path(flipped([(0.42, 1.08), (0.26, 1.3), (0, 1.53)], side))
            body.stroke(line, 0.09, darker(cloth, 0.3), ends=(0.8, 0.8))
        elif style == "hoodie":
            hood = [(0.36, 0.98), (0.62, 1.10), (0.56, 1.34), (0, 1.50), (0, 1.32), (0.32, 1.20)]
            body.fill(curve(flipped(hood, side)), darker(cloth, 0.22 if side > 0 else 0.1))
            cord = path(flipped([(0.15, 1.44), (0.17, 1.58), (0.14, 1.72)], side))
            body.stroke(cord, 0.04, lighter(cloth, 0.8), ends=(1, 1))
        elif style == "shirt":
            _flap(sketch, side, cloth)
        else:
            _flap(sketch, side, linen)
            lapel = [(0.46, 1.10), (0.78, 1.30), (0.60, 1.50), (0.68, 1.54), (0.1, 2.3), (0.36, 1.46)]
            body.fill(flipped(lapel, side), darker(cloth, 0.35) if side > 0 else lighter(cloth, 0.12))


def _flap(sketch: Sketch, side: int, linen: Colour) -> None:
    """Draw one half of a turned-down collar."""
    flap = flipped([(0.40, 0.98), (0.47, 1.14), (0.30, 1.46), (0.03, 1.28), (0.26, 1.18)], side)
    sketch.on_body().fill(moved(flap, 0.02 * side, 0.04), darker(linen, 0.5), 0.6)
    sketch.on_body().fill(flap, lighter(linen, 0.35))


def _necktie(sketch: Sketch) -> None:
    face, body = sketch.face, sketch.on_body()
    wide, colour = face.level("Wearing_Necktie"), hsv(pick(_TIE_HUES, face.tie_hue), 0.8, 0.72)
    blade = np.array([(-0.08 * wide, 1.42), (0.08 * wide, 1.42), (0.21 * wide, 2.2), (-0.21 * wide, 2.2)])
    body.fill(blade, colour)
    if face.tie_kind > 0.5:
        with body.inside(blade):
            for y in np.arange(1.4, 2.2, 0.15):
                stripe = np.array([(-0.3, y + 0.12), (0.3, y - 0.12), (0.3, y - 0.06), (-0.3, y + 0.18)])
                body.fill(stripe, lighter(colour, 0.6))
    knot = np.array([(-0.14 * wide, 1.22), (0.14 * wide, 1.22), (0.085 * wide, 1.43), (-0.085 * wide, 1.43)])
    body.fill(knot, darker(colour, 0.25))
