# SPDX-License-Identifier: Apache-2.0
"""A sketch -> its head without hair and features: skull, ears, neck, light on the skin, age."""

import math

import numpy as np

from latentwire_lab.faces.canvas import Points, curve, ellipse, flipped, mirrored, moved, path
from latentwire_lab.faces.clothes import neckline
from latentwire_lab.faces.face import Face
from latentwire_lab.faces.palette import darker, lighter, mix
from latentwire_lab.faces.sketch import Sketch

EAR_DEPTH = -0.22


def half_width(face: Face) -> float:
    """Map a face to the half width of its head."""
    return face.head_width * (0.84 - 0.12 * face.level("Oval_Face"))


def chin(face: Face) -> float:
    """Map a face to the y of its chin, which drops with the lower lip."""
    return 0.95 + 0.1 * face.level("Oval_Face") + face.chin + 0.55 * face.level("Mouth_Slightly_Open")


def outline(sketch: Sketch) -> Points:
    """Map a sketch to the contour of the face, from the top of the forehead to the chin, in pixels."""
    face = sketch.face
    oval, wide, low = face.level("Oval_Face"), half_width(face), chin(face)
    half = [
        (0.0, -0.98), (0.52 * wide, -0.92), (0.90 * wide, -0.62), (1.0 * wide, -0.15), (0.97 * wide, 0.25),
        ((0.89 - 0.17 * oval) * wide + face.jaw, 0.60), ((0.58 - 0.20 * oval) * wide, low - 0.11), (0.0, low),
    ]  # fmt: skip
    # The chin is nearer than the temples and shifts further when the head is turned.
    depth = [-0.1, -0.1, -0.05, 0.0, 0.06, 0.18, 0.34, 0.42]
    depths = curve([(z, 0.0) for z in (*depth, *depth[6:0:-1])])[:, 0]
    return sketch.head.place(curve(mirrored(half)), depths)


def neck(sketch: Sketch) -> None:
    """Draw the neck, as far as the clothes leave it bare, with the head's shadow on it."""
    face, skin = sketch.face, sketch.palette.skin
    wide, low = 0.33 * face.shoulders + 0.03, neckline(face)
    half = [
        (0.0, 0.3), (0.95 * wide, 0.5), (0.92 * wide, 1.0), (1.12 * wide, 1.17), (0.75 * wide, low - 0.1), (0.0, low),
    ]  # fmt: skip
    shape, body, unit = curve(mirrored(half)), sketch.on_body(), sketch.head.unit
    body.fill(shape, skin)
    with body.inside(shape):
        cast = moved(outline(sketch), -0.08 * face.light_x * unit, 0.15 * unit)
        sketch.canvas.fill(cast, darker(skin, 0.38))


def ears(sketch: Sketch) -> None:
    """Draw both ears; the head hides the far one."""
    face, skin, plane = sketch.face, sketch.palette.skin, sketch.at(EAR_DEPTH)
    x, size = half_width(face) - 0.01, face.ear_size
    rim = [(x, -0.10), (x + 0.11 * size, -0.14 * size), (x + 0.15 * size, 0.0), (x + 0.09 * size, 0.22 * size),
           (x, 0.30 * size)]  # fmt: skip
    fold = [(x + 0.09 * size, -0.07), (x + 0.10 * size, 0.03), (x + 0.04, 0.15)]
    for side in (-1, 1):
        plane.fill(curve(flipped(rim, side)), skin)
        plane.stroke(path(flipped(fold, side)), 0.045, darker(skin, 0.35), ends=(0.5, 0.5))


def skin(sketch: Sketch) -> None:
    """Draw the face's skin: light, cheeks, freckles, lines."""
    face, canvas = sketch.face, sketch.canvas
    # The back of the head lies behind the face, and shows beside the face when the head is turned.
    skull = sketch.head.place(ellipse(0, -0.24, 0.97 * half_width(face), 0.80), -0.25)
    shape = outline(sketch)
    canvas.fill(skull, sketch.palette.skin)
    canvas.fill(shape, sketch.palette.skin)
    with canvas.inside(shape, skull):
        _light(sketch)
        _cheeks(sketch)
        if "Young" not in face:
            _lines(sketch)
        if face.freckles > 0:
            _freckles(sketch)


def _light(sketch: Sketch) -> None:
    palette, light, plane = sketch.palette, sketch.face.light_x, sketch.on_face()
    side = sketch.dark_side
    sketch.canvas.shade(
        0.35 if side > 0 else math.pi - 0.35, darker(palette.skin, 0.42), 0.15 + 0.45 * abs(light),
        centre=sketch.head.place(np.array([(0.25 * side, 0.1)])), reach=0.75 * sketch.head.unit,
    )  # fmt: skip
    bright = lighter(palette.skin, 0.35)
    plane.glow(0.25 * light, -0.42, (0.55, 0.42), bright, 0.55)
    plane.glow(0.30 * light, 0.22, (0.45, 0.30), bright, 0.4)
    plane.glow(0.0, 0.98, (0.5, 0.2), palette.shadow, 0.35)


def _cheeks(sketch: Sketch) -> None:
    skin, plane = sketch.palette.skin, sketch.on_face()
    red, smile = sketch.face.level("Rosy_Cheeks"), max(sketch.face.level("Smiling"), 0)
    for side in (-1, 1):
        # A smile lifts the cheeks: they catch light, and leave a hollow below.
        plane.glow(side * 0.48, 0.58, (0.26, 0.20), darker(skin, 0.35), 0.6 * smile)
        plane.glow(side * 0.44, 0.33, (0.26, 0.17), lighter(skin, 0.45), 0.5 * smile)
        plane.glow(side * 0.46, 0.36, (0.36, 0.27), mix(skin, (238, 58, 80), 0.62), 0.06 + 0.8 * red)


def _lines(sketch: Sketch) -> None:
    face, plane = sketch.face, sketch.on_face()
    depth, colour = face.level("Young"), darker(sketch.palette.skin, 0.5)
    smile = 0.04 * max(face.level("Smiling"), 0)
    hollows = [(0.33, 0.25, 0.2), (0.27, 0.52, 0.16), (0.5, 0.66, 0.2)]
    lines = [
        [(0.19, 0.36), (0.32 + smile, 0.50), (0.37, 0.68)],  # beside the mouth
        [(0.20, 0.20), (0.33, 0.27), (0.47, 0.20)],  # below the eye
        [(0.55, 0.04), (0.64, 0.0)],  # and beside it
        [(0.55, 0.09), (0.65, 0.11)],
        [(0.0, -0.46), (0.30, -0.43)],  # on the forehead
        [(0.0, -0.57), (0.36, -0.54)],
    ]
    for side in (-1, 1):
        for x, y, radius in hollows:
            plane.glow(side * x, y, (radius, radius), colour, 0.32 * depth)
        for line in lines:
            ends = (1.0, 0.2) if line[0][0] == 0 else (0.2, 0.2)
            plane.stroke(path(flipped(line, side)), 0.058 * depth, colour, 0.68, ends=ends)


def _freckles(sketch: Sketch) -> None:
    colour, opacity = darker(sketch.palette.skin, 0.4), 0.25 + 0.35 * sketch.face.freckles
    for k in range(16):
        spot = ellipse(0.55 * math.sin(2.4 * k), 0.26 + 0.11 * math.cos(3.9 * k), 0.017, 0.014)
        sketch.on_face().fill(spot, colour, opacity)
