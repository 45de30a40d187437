# SPDX-License-Identifier: Apache-2.0
"""A sketch -> the features of its face: eyes, brows, nose, mouth, beard."""

import numpy as np

from latentwire_lab.faces.canvas import Points, curve, ellipse, flipped, mirrored, moved, path
from latentwire_lab.faces.face import Face
from latentwire_lab.faces.head import chin
from latentwire_lab.faces.palette import darker, lighter, mix
from latentwire_lab.faces.sketch import Sketch

_EYE_X, _EYE_Y = 0.335, 0.06
_LASH, _PUPIL, _WHITE, _TEETH = (44, 30, 34), (20, 16, 18), (250, 246, 242), (252, 248, 240)
_THROAT, _TONGUE = (92, 28, 36), (206, 96, 100)


def eye_place(face: Face, side: int) -> tuple[float, float]:
    """Map a face and -1 or 1 to the middle of its left or right eye."""
    return side * (_EYE_X + face.eye_gap), _EYE_Y


def eyes(sketch: Sketch) -> None:
    """Draw both eyes: white, iris that looks somewhere, lids, lashes."""
    face, palette, plane = sketch.face, sketch.palette, sketch.on_face()
    wide, slant, lash = 0.165 * face.eye_size, face.eye_slant, face.lashes
    tall = 0.126 * face.level("Narrow_Eyes") * face.eye_size
    inner, outer = (-wide, 0.015), (wide, -slant)
    lid = [inner, (-0.5 * wide, -0.72 * tall), (0.1 * wide, -tall), (0.68 * wide, -0.66 * tall - 0.3 * slant), outer]
    rest = [outer, (0.5 * wide, 0.5 * tall), (-0.3 * wide, 0.6 * tall), inner]
    for side in (-1, 1):
        x, y = eye_place(face, side)
        upper = moved(path(flipped(lid, side)), x, y)
        lower = moved(path(flipped(rest, side)), x, y)
        almond = np.concatenate([upper, lower])
        plane.glow(x - side * 0.03, y - 0.09, (0.27, 0.2), palette.shadow, 0.45)
        plane.fill(almond, _WHITE)
        with plane.inside(almond):
            at_x, at_y = x + 0.055 * face.gaze_x, y - 0.012 + 0.022 * face.gaze_y
            plane.fill(ellipse(at_x, at_y, 0.104, 0.108), darker(palette.iris, 0.5))
            plane.fill(ellipse(at_x, at_y + 0.008, 0.082, 0.086), lighter(palette.iris, 0.12))
            plane.fill(ellipse(at_x, at_y, 0.045, 0.05), _PUPIL)
            plane.stroke(moved(upper, 0, 0.02), 0.06, (60, 40, 60), 0.35, ends=(1, 1))
            plane.fill(ellipse(at_x - 0.035 * sketch.dark_side, at_y - 0.035, 0.026, 0.026), (255, 255, 255))
        plane.stroke(moved(upper[4:-3], 0, -0.055), 0.028, darker(palette.skin, 0.4), 0.7, ends=(0.2, 0.4))
        plane.stroke(lower, 0.02, darker(palette.skin, 0.5), 0.7, ends=(0.6, 0.2))
        tip = moved(upper[-1:], side * (0.02 + 0.045 * lash), -0.05 * lash)
        plane.stroke(np.concatenate([upper, tip]), 0.045 + 0.02 * lash, _LASH, ends=(0.3, 0.5))


def brows(sketch: Sketch) -> None:
    """Draw both brows, over the hair too, so that they are always visible."""
    face = sketch.face
    thick, arch, slant = face.level("Bushy_Eyebrows"), face.brow_arch, face.brow_slant
    line = [(-0.21, 0.02 + slant), (-0.02, -0.7 * arch), (0.12, -arch), (0.25, 0.03 - slant)]
    for side in (-1, 1):
        x, y = eye_place(face, side)
        brow = moved(path(flipped(line, side)), x, y - 0.235 - face.brow_height - 0.2 * thick)
        sketch.on_face(0.04).stroke(brow, thick, sketch.palette.beard, ends=(0.75, 0.2))


def nose(sketch: Sketch) -> None:
    """Draw the nose: a bridge with one side in shadow, and a tip that is a ball or a sharp edge."""
    face, skin, dark = sketch.face, sketch.palette.skin, sketch.dark_side
    size, sharp = face.level("Big_Nose"), face.level("Pointy_Nose")
    y, lift = 0.35 + face.nose_length + 0.03 * size, 0.06 + 0.06 * size
    plane = sketch.on_face(lift)
    # From the tip, given twice because it is a corner, to the wing.
    ball = np.array([(0.0, 0.06), (0.0, 0.06), (0.08, 0.045), (0.15, -0.005), (0.14, -0.085)])
    edge = np.array([(0.03 * dark, 0.125), (0.03 * dark, 0.125), (0.05, 0.06), (0.095, -0.01), (0.06, -0.06)])
    half = (ball * (1 - sharp) + edge * sharp) * size
    right, left = moved(half, 0, y), moved(half * np.array((-1, 1)), 0, y)
    left[:2] = right[:2]
    lower = path(np.concatenate([left[:0:-1], right[1:]]))
    shaded = [(dark * 0.03, -0.12), (dark * 0.03, 0.12), *(right if dark > 0 else left), (dark * 0.08, 0.1)]
    plane.fill(curve(shaded), darker(skin, 0.36), 0.25 + 0.55 * sharp)
    cast = np.concatenate([lower, moved(lower[::-1] * np.array((0.7, 1)), dark * 0.04, 0.05)])
    sketch.on_face(lift / 2).fill(cast, darker(skin, 0.42), 0.55)
    tip = ellipse(0, y - 0.025 * size, 0.1 * size, 0.085 * size)
    plane.fill(tip, mix(lighter(skin, 0.1), (236, 120, 96), 0.22), 0.85 * (1 - sharp))
    shine = ellipse(-dark * 0.025, y - 0.055 * size, 0.04 * size * (1 - 0.5 * sharp), 0.03 * size)
    sketch.on_face(lift + 0.05).fill(shine, lighter(skin, 0.4), 0.7)
    ridge = path([(-dark * 0.015, 0.02), (-dark * 0.01, 0.2), (half[0, 0] - dark * 0.02, half[0, 1] + y - 0.05)])
    plane.stroke(ridge, 0.055, lighter(skin, 0.5), 0.75 * sharp, ends=(0.2, 0.5))
    plane.stroke(lower, 0.04, darker(skin, 0.58), ends=(0.3, 0.3))
    for x in (-0.085, 0.085):
        plane.fill(ellipse(x * size, y + 0.03 * size, 0.03 * size, 0.016 * size), darker(skin, 0.7), 0.9 * (1 - sharp))


def mouth(sketch: Sketch) -> None:
    """Draw the mouth: lips, and between them teeth and dark where it is open."""
    face, lips, plane = sketch.face, sketch.palette.lips, sketch.on_face(0.02)
    smile, gap, thick = face.level("Smiling"), face.level("Mouth_Slightly_Open"), face.level("Big_Lips")
    glad = max(smile, 0)
    y = 0.665 + face.mouth_height - 0.015 * glad
    wide = face.mouth_width * (0.24 + 0.09 * glad - 0.25 * gap * (1 - glad))
    up, down = y + 0.07 * smile - (0.05 + 0.2 * glad) * gap, y + 0.085 * smile + 0.75 * gap
    corner, bottom = y - 0.14 * smile, down + 0.085 * thick
    left, right = (-wide, corner + face.lopsided), (wide, corner - face.lopsided)

    def lip(height: float, dip: float, fullness: float) -> Points:
        """Return a line from corner to corner, `height` and `dip` lower in the middle, full or thin beside it."""
        beside, tilt = height + (corner - height) * (1 - fullness), 0.6 * face.lopsided
        return path([left, (-0.58 * wide, beside + tilt), (-0.2 * wide, height), (0, height + dip),
                      (0.2 * wide, height), (0.58 * wide, beside - tilt), right])  # fmt: skip

    upper, lower = lip(up, 0.008, 0.66), lip(down, 0.0, 0.78)
    over, under = lip(up - 0.06 * thick, 0.025, 0.72), lip(bottom, 0.004, 0.8)
    sketch.on_face().glow(0.0, bottom + 0.05, (0.2, 0.07), sketch.palette.shadow, 0.7)
    if gap:
        opening = np.concatenate([upper, lower[::-1]])
        plane.fill(opening, _THROAT)
        with plane.inside(opening):
            plane.fill(ellipse(0, down + 0.03, 0.16, 0.07), _TONGUE)
            rim = moved(upper, 0, (0.28 + 0.2 * glad) * gap)
            plane.fill(np.concatenate([moved(upper, 0, -0.05), rim[::-1]]), _TEETH)
    plane.fill(np.concatenate([upper, over[::-1]]), darker(lips, 0.12))
    plane.fill(np.concatenate([lower, under[::-1]]), lips)
    shine = ellipse(0.05 * face.light_x, (down + bottom) / 2 - 0.01, 0.35 * wide, 0.018 * thick)
    plane.fill(shine, lighter(lips, 0.5), 0.5)
    if not gap:
        plane.stroke(upper, 0.036, darker(lips, 0.65), ends=(0.6, 0.6))
    for side, (x, y) in ((-1, left), (1, right)):
        dimple = flipped([(-0.01, 0.03), (0.03, -0.02 * glad), (0.02, -0.05)], side)
        colour = darker(sketch.palette.skin, 0.5)
        plane.stroke(moved(path(dimple), x, y), 0.028, colour, 0.2 + 0.5 * glad, ends=(0.3, 0.3))


def beard(sketch: Sketch) -> None:
    """Draw mustache and goatee."""
    face = sketch.face
    cut, smile = face.beard_cut, face.level("Smiling")
    if "Goatee" in face:
        size, low = face.level("Goatee"), chin(face)
        top = min(0.80 + 0.5 * face.level("Mouth_Slightly_Open") + 0.05 * face.level("Big_Lips"), low - 0.1)
        half = [(0.0, top), (0.10, top + 0.03), (0.27 * size, top + 0.02), ((0.29 - 0.1 * cut) * size, low + 0.02),
                (0.0, low + (0.13 + 0.12 * cut) * size)]  # fmt: skip
        _hairy(sketch, curve(mirrored(half)))
    if "Mustache" in face:
        size, curl = face.level("Mustache"), 0.07 * smile + 0.07 * cut
        end = (0.37 + 0.05 * cut) * size
        half = [(0.0, 0.51), (0.10, 0.485), (0.25 * size, 0.53), (end, 0.63 - curl), (end, 0.645 - curl), (0.18, 0.625),
                (0.0, 0.59)]  # fmt: skip
        _hairy(sketch, moved(curve(mirrored(half)), 0, face.mouth_height))


def _hairy(sketch: Sketch, shape: Points) -> None:
    """Fill a shape with beard."""
    plane, colour = sketch.on_face(0.04), sketch.palette.beard
    plane.fill(shape, colour)
    (left, top), (right, bottom) = shape.min(0), shape.max(0)
    with plane.inside(shape):
        for share in (0.1, 0.3, 0.5, 0.7, 0.9):
            x = left + (right - left) * share
            strand = np.array([(0.6 * x, top), (x, (top + bottom) / 2), (1.1 * x, bottom)])
            plane.stroke(strand, 0.02, lighter(colour, 0.2), 0.6)
