# SPDX-License-Identifier: Apache-2.0
"""A sketch -> what is worn on the face: eyeglasses and earrings."""

import numpy as np

from latentwire_lab.faces.canvas import Points, curve, ellipse, flipped, moved
from latentwire_lab.faces.face import pick
from latentwire_lab.faces.features import eye_place
from latentwire_lab.faces.head import EAR_DEPTH, half_width
from latentwire_lab.faces.palette import darker
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
    bridge = curve([(-0.09, y - 0.02), (0, y - 0.06), (0.09, y - 0.02)], False)
    plane.stroke(bridge, thick, colour, ends=(1, 1))


def earrings(sketch: Sketch) -> None:
    """Draw earrings below both lobes: rings, drops or beads. They hang straight down, however the head is held."""
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
    """An outline -> a line all around it."""
    return np.concatenate([outline, outline[:1]])
