# SPDX-License-Identifier: Apache-2.0
"""A sketch -> the surroundings of its face: a gradient and large shapes behind it, warm or cool air before it."""

import math

import numpy as np

from latentwire_lab.faces.canvas import Canvas, Colour, Points, curve, ellipse, path
from latentwire_lab.faces.face import Face, pick
from latentwire_lab.faces.palette import lighter, tint
from latentwire_lab.faces.sketch import Sketch


def backdrop(sketch: Sketch) -> None:
    """Fill the canvas."""
    canvas, face, side = sketch.canvas, sketch.face, sketch.canvas.side
    light = face.backdrop_light
    first = tint(face.backdrop_hue, 0.9 * light - 0.3)
    second = tint(face.backdrop_hue + face.backdrop_contrast, 0.6 * light - 0.25)
    canvas.fill(_everything(canvas), first)
    canvas.shade(face.backdrop_angle, second, 1.0, centre=np.array([(side / 2, side / 2)]), reach=0.7 * side)
    shapes = pick((_plain, _disc, _stripes, _hills, _window, _dots), face.backdrop_kind)
    shapes(canvas, face, lighter(first, 0.4))


def air(sketch: Sketch) -> None:
    """Tint the whole picture a little, like a warm or a cool light."""
    warmth = sketch.face.light_warmth
    colour = (255, 178, 96) if warmth > 0 else (104, 150, 255)
    sketch.canvas.fill(_everything(sketch.canvas), colour, 0.07 * abs(warmth))


def _everything(canvas: Canvas) -> Points:
    side = float(canvas.side)
    return np.array([(0.0, 0.0), (side, 0.0), (side, side), (0.0, side)])


def _plain(canvas: Canvas, face: Face, colour: Colour) -> None:
    pass


def _disc(canvas: Canvas, face: Face, colour: Colour) -> None:
    disc = curve(ellipse(0.5 + 0.1 * math.cos(face.backdrop_angle), 0.45, 0.42, 0.42))
    canvas.fill(disc * canvas.side, colour, 0.7)


def _stripes(canvas: Canvas, face: Face, colour: Colour) -> None:
    slant = 0.12 * face.backdrop_angle
    for k in range(-2, 6):
        x = 0.26 * k + 0.04 * face.backdrop_angle
        canvas.fill(
            canvas.side * np.array([(x, 0), (x + 0.12, 0), (x + 0.12 + slant, 1), (x + slant, 1)]), colour, 0.45
        )


def _hills(canvas: Canvas, face: Face, colour: Colour) -> None:
    angle = face.backdrop_angle
    for k, height in enumerate((0.55, 0.68)):
        ridge = path([(x / 6, height + 0.08 * math.sin(1.3 * x + angle + 2 * k)) for x in range(-1, 8)])
        land = np.concatenate([ridge, [(1.2, 1.1), (-0.2, 1.1)]])
        canvas.fill(land * canvas.side, tint(face.backdrop_hue + 0.1 + 0.05 * k, 0.15 - 0.2 * k))
    canvas.fill(ellipse(0.5 + 0.12 * angle, 0.2, 0.09, 0.09) * canvas.side, colour)


def _window(canvas: Canvas, face: Face, colour: Colour) -> None:
    left = 0.18 + 0.1 * face.backdrop_angle / math.pi
    for x in (left, left + 0.3):
        for y in (-0.1, 0.3):
            pane = np.array([(x, y), (x + 0.27, y), (x + 0.27, y + 0.37), (x, y + 0.37)])
            canvas.fill(pane * canvas.side, colour, 0.75)


def _dots(canvas: Canvas, face: Face, colour: Colour) -> None:
    for k in range(14):
        x, y = 0.5 + 0.5 * math.sin(2.4 * k + face.backdrop_angle), (k * 0.618 + face.backdrop_hue) % 1
        radius = 0.04 + 0.03 * math.sin(1.7 * k)
        canvas.fill(ellipse(x, y, radius, radius) * canvas.side, colour, 0.4)
