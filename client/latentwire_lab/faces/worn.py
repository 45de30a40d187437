# SPDX-License-Identifier: Apache-2.0
"""A sketch -> the things worn on the head: a hat, eyeglasses, earrings. Hats leave the forehead's lower half free."""

import numpy as np

from latentwire_lab.faces.canvas import Colour, Points, curve, ellipse, flipped, mirrored, moved, path
from latentwire_lab.faces.face import pick
from latentwire_lab.faces.features import eye_place
from latentwire_lab.faces.head import EAR_DEPTH, half_width
from latentwire_lab.faces.palette import darker, lighter, tint
from latentwire_lab.faces.sketch import Sketch

_FRAMES = ((28, 26, 30), (92, 46, 26), (132, 24, 38), (28, 48, 96), (24, 78, 70), (88, 40, 104))
_METALS = ((255, 208, 70), (236, 240, 246), (232, 60, 84), (40, 170, 180))
_LENS, _WHITE = (226, 238, 246), (255, 255, 255)
# Around the middle of the right eye.
_ROUND = ellipse(0, 0, 0.265, 0.25)
_SQUARE = curve(
    [(-0.27, -0.15), (-0.22, -0.19), (0.22, -0.19), (0.27, -0.15), (0.27, 0.13), (0.20, 0.19), (-0.20, 0.19),
     (-0.27, 0.13)]
)  # fmt: skip
_CAT_EYE = curve(
    [(-0.25, -0.14), (0.1, -0.18), (0.36, -0.27), (0.29, 0.0), (0.12, 0.2), (-0.12, 0.2), (-0.25, 0.03)]
)  # fmt: skip
_GLARE = np.array([(-0.1, -0.15), (-0.02, -0.15), (-0.1, 0.11), (-0.17, 0.09)])
_DROP = curve(
    [(0, 0), (0.03, 0.06), (0.095, 0.2), (0.06, 0.3), (0, 0.32), (-0.06, 0.3), (-0.095, 0.2), (-0.03, 0.06)]
)  # fmt: skip
_SIDES, _FRONT = -0.12, 0.5  # depths of a rim: at the sides, and in the middle
_CAST = (40, 24, 30)  # the colour of a hat's shadow


def glasses(sketch: Sketch) -> None:
    """Draw eyeglasses with clear lenses."""
    face, plane = sketch.face, sketch.on_face(0.1)
    if "Eyeglasses" not in face:
        return
    thick, colour = 0.06 * face.level("Eyeglasses"), pick(_FRAMES, face.glasses_hue)
    shape = pick((_ROUND, _SQUARE, _CAT_EYE), face.glasses_kind)
    for side in (-1, 1):
        x, y = eye_place(face, side)
        rim = moved(shape * np.array((side, 1)), x, y + 0.01)
        plane.fill(rim, _LENS, 0.16)
        plane.fill(moved(_GLARE, x, y + 0.01), _WHITE, 0.25)
        plane.stroke(_closed(rim), thick, colour, ends=(1, 1))
        arm = np.array([(x + side * 0.27, y - 0.05), (side * half_width(face), y - 0.04)])
        ends = sketch.head.place(arm, np.array([0.45, -0.1]))
        sketch.canvas.stroke(ends, 0.9 * thick * sketch.head.unit, colour, ends=(1, 1))
    bridge = path([(-0.09, y - 0.02), (0, y - 0.06), (0.09, y - 0.02)])
    plane.stroke(bridge, thick, colour, ends=(1, 1))


def earrings(sketch: Sketch) -> None:
    """Draw earrings below both lobes: rings, drops or beads. They hang straight down, whatever the pose of the head."""
    face, canvas = sketch.face, sketch.canvas
    if "Wearing_Earrings" not in face:
        return
    colour = pick(_METALS, face.earring_hue)
    edge, kind = darker(colour, 0.6), pick(("ring", "drop", "beads"), face.earring_kind)
    size, unit = face.level("Wearing_Earrings") * sketch.head.unit, sketch.head.unit
    lobe = [(half_width(face) + 0.05, 0.27 * face.ear_size)]
    for side in (-1, 1):
        x, y = sketch.head.place(flipped(lobe, side), EAR_DEPTH)[0]
        if kind == "ring":
            ring = _closed(ellipse(x, y + 0.14 * size, 0.10 * size, 0.14 * size))
            canvas.stroke(ring, 0.09 * unit, edge, ends=(1, 1))
            canvas.stroke(ring, 0.06 * unit, colour, ends=(1, 1))
        elif kind == "drop":
            canvas.fill(moved(1.15 * size * _DROP, x, y), edge)
            canvas.fill(moved(0.95 * size * _DROP, x, y + 0.02 * unit), colour)
            canvas.fill(ellipse(x - 0.03 * unit, y + 0.18 * unit, 0.02 * unit, 0.04 * unit), _WHITE)
        else:
            for down, radius in ((0.02, 0.06), (0.13, 0.07), (0.26, 0.085)):
                canvas.fill(ellipse(x, y + down * unit, 1.25 * radius * size, 1.25 * radius * size), edge)
                canvas.fill(ellipse(x, y + down * unit, radius * size, radius * size), colour)


def _closed(outline: Points) -> Points:
    """Map an outline to a line all around it."""
    return np.concatenate([outline, outline[:1]])


def hat(sketch: Sketch) -> None:
    """Draw the hat."""
    face = sketch.face
    if "Wearing_Hat" in face:
        colour = tint(face.hat_hue, 0.5 - face.hat_light)
        wide = (half_width(face) + 0.11) * face.level("Wearing_Hat") + 0.03
        pick((_beanie, _cap, _fedora), face.hat_kind)(sketch, colour, wide)


def _rim(sketch: Sketch, wide: float, y: float) -> Points:
    """Map a half width and a y to the line around the front of the head, from left to right, in pixels."""
    line = path([(-wide, y - 0.06), (-0.6 * wide, y + 0.02), (0, y + 0.05), (0.6 * wide, y + 0.02), (wide, y - 0.06)])
    return sketch.head.place(line, np.interp(np.abs(line[:, 0]), (0, wide), (_FRONT, _SIDES)))


def _crown(sketch: Sketch, wide: float, top: float, low: float, square: float = 0.0) -> Points:
    """Map half the width, and the y of top and rim, to a hat's crown: an outline in pixels, round or `square`."""
    half = [
        (0.0, top), ((0.5 + square) * wide, top + 0.06 - 0.04 * square),
        ((0.88 + 0.06 * square) * wide, top + 0.28), (wide, low - 0.06),
    ]  # fmt: skip
    over = path(mirrored(half[::-1]))
    return np.concatenate([sketch.head.place(over, _SIDES), _rim(sketch, wide, low)])


def _beanie(sketch: Sketch, colour: Colour, wide: float) -> None:
    canvas = sketch.canvas
    crown = _crown(sketch, wide, -1.32, -0.62)
    sketch.at(-0.1).fill(ellipse(0, -1.36, 0.17, 0.16), lighter(colour, 0.55))
    canvas.fill(crown, colour)
    with canvas.inside(crown):
        for x in (-0.66, -0.33, 0.0, 0.33, 0.66):
            rib = path([(0.4 * x * wide, -1.3), (1.1 * x * wide, -0.95), (1.2 * x * wide, -0.5)])
            sketch.at(0.2).stroke(rib, 0.05, darker(colour, 0.3), 0.6)
    fold = np.concatenate([_rim(sketch, 1.03 * wide, -0.78), _rim(sketch, 1.03 * wide, -0.55)[::-1]])
    canvas.fill(fold, lighter(colour, 0.22))
    with canvas.inside(fold):
        for x in np.linspace(-0.9, 0.9, 11):
            stitch = np.array([(x * wide, -0.9), (x * wide, -0.4)])
            sketch.at(_FRONT * (1 - abs(x))).stroke(stitch, 0.04, darker(colour, 0.2), 0.6, ends=(1, 1))


def _cap(sketch: Sketch, colour: Colour, wide: float) -> None:
    canvas, unit = sketch.canvas, sketch.head.unit
    crown = _crown(sketch, wide, -1.28, -0.68)
    canvas.fill(crown, colour)
    with canvas.inside(crown):
        panel = path([(0, -1.28), (0.02, -0.9), (0, -0.5)])
        sketch.at(0.4).stroke(panel, 0.03, darker(colour, 0.4), 0.8, ends=(1, 1))
        sketch.at(_FRONT).fill(ellipse(0, -0.93, 0.16, 0.14), lighter(colour, 0.75))
    near = path([(-0.92 * wide, -0.72), (-0.66 * wide, -0.56), (0, -0.46), (0.66 * wide, -0.56), (0.92 * wide, -0.72)])
    far = path([(0.92 * wide, -0.74), (0.5 * wide, -0.70), (0, -0.68), (-0.5 * wide, -0.70), (-0.92 * wide, -0.74)])
    bent = 1 - (near[:, 0] / wide) ** 2
    edge = sketch.head.place(near, 0.1 + 0.85 * bent)
    visor = np.concatenate([edge, sketch.head.place(far, 0.6 * bent)])
    canvas.fill(moved(visor, 0, 0.06 * unit), _CAST, 0.35)
    canvas.fill(visor, darker(colour, 0.32))
    canvas.stroke(edge, 0.05 * unit, lighter(colour, 0.25), ends=(0.5, 0.5))


def _fedora(sketch: Sketch, colour: Colour, wide: float) -> None:
    canvas, unit = sketch.canvas, sketch.head.unit
    half = [(0, -0.8), (0.8 * wide, -0.76), (1.5 * wide, -0.66), (0.9 * wide, -0.54), (0, -0.48)]
    brim = curve(mirrored(half))
    placed = sketch.head.place(brim, np.interp(brim[:, 1], (-0.8, -0.48), (-0.5, 0.6)))
    canvas.fill(moved(placed, 0, 0.07 * unit), _CAST, 0.35)
    canvas.fill(placed, darker(colour, 0.25))
    canvas.fill(_crown(sketch, 0.98 * wide, -1.34, -0.66, 0.3), colour)
    ribbon = np.concatenate([_rim(sketch, 0.99 * wide, -0.84), _rim(sketch, wide, -0.66)[::-1]])
    canvas.fill(ribbon, darker(colour, 0.65))
    crease = path([(-0.2, -1.32), (0, -1.2), (0.15, -1.05)])
    sketch.at(0.3).stroke(crease, 0.06, darker(colour, 0.3), 0.6)
