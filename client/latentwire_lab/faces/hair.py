# SPDX-License-Identifier: Apache-2.0
"""A sketch -> its hair: behind the head, around the face, and over the forehead."""

import math

import numpy as np

from latentwire_lab.faces.canvas import Points, curve, ellipse, flipped, moved, path
from latentwire_lab.faces.face import Face
from latentwire_lab.faces.head import half_width, outline
from latentwire_lab.faces.palette import darker, lighter
from latentwire_lab.faces.sketch import Plane, Sketch

_WAVE = 0.40  # the length of a wave
_BACK, _CAP = -0.35, -0.12  # depths
_HAT_RIM = -0.55  # above it a hat hides curls


def _curly(face: Face) -> bool:
    return not {"Straight_Hair", "Wavy_Hair"} & face.attributes


def _volume(face: Face) -> float:
    return 0.05 + 0.10 * face.hair_volume + (0.07 if _curly(face) else 0)


def _waved(points: Points, face: Face) -> Points:
    """Map points of an outline to points that swing to and fro where hair is wavy."""
    height = 0.085 * face.level("Wavy_Hair")
    swing = height * np.sin(2 * np.pi * points[:, 1] / _WAVE) * np.clip(np.abs(points[:, 0]) * 2 - 0.6, 0, 1)
    return points + np.stack([np.sign(points[:, 0]) * swing, np.zeros_like(swing)], axis=1)


def back(sketch: Sketch) -> None:
    """Draw what is behind the head, before neck and ears."""
    face, plane = sketch.face, sketch.at(_BACK)
    if "Bald" in face:
        return
    volume, end, colour = _volume(face), 0.12 + 1.25 * face.hair_length, darker(sketch.palette.hair, 0.28)
    wide = half_width(face) + volume
    top = [(0.0, -1.05 - 0.6 * volume), (0.6 * wide, -0.92 - 0.5 * volume)]
    if "Wearing_Hat" in face:
        top = [(0.0, _HAT_RIM - 0.2), (0.6 * wide, _HAT_RIM - 0.15)]
    line = path([*top, (wide, -0.45), (wide + 0.03, 0.0), (wide + 0.05, 0.5 * end + 0.02), (0.9 * wide, end)])
    if _curly(face):
        for x, y in line[8::4]:
            if "Wearing_Hat" not in face or y > _HAT_RIM:
                plane.fill(ellipse(-x, y, 0.2, 0.2), colour)
                plane.fill(ellipse(x, y, 0.2, 0.2), colour)
    right = _waved(line, face)
    left = right * np.array((-1, 1))
    plane.fill(np.concatenate([right, left[::-1]]), colour)
    if end > 0.5 and not _curly(face):
        for half in (left, right):
            for share in (0.86, 0.95):
                plane.stroke(half[14:] * np.array((share, 1)), 0.035, darker(sketch.palette.hair, 0.05), 0.8)


def front(sketch: Sketch) -> None:
    """Draw what frames the face, with its shadow on it, after the features."""
    face, colour, unit = sketch.face, sketch.palette.hair, sketch.head.unit
    if "Bald" in face:
        return
    halves = [_frame(face, side) for side in (-1, 1)]
    depth = np.linspace(_CAP + 0.1, _CAP, len(halves[0][0]))
    placed = [(sketch.head.place(outer, depth), sketch.head.on_face(inner)) for outer, inner in halves]
    shapes = [np.concatenate([outer, inner[::-1]]) for outer, inner in placed]
    with sketch.canvas.inside(outline(sketch)):
        for shape in shapes:
            sketch.canvas.fill(moved(shape, 0, 0.06 * unit), sketch.palette.shadow, 0.6)
    for shape in shapes:
        sketch.canvas.fill(shape, colour)
    if _curly(face):
        _curls(sketch, np.concatenate([halves[0][0][::-1], halves[1][0]]))
    else:
        for outer, inner in placed:
            for share, width, tone in ((0.22, 0.03, darker), (0.5, 0.05, lighter), (0.78, 0.03, darker)):
                strand = outer * (1 - share) + inner * share
                sketch.canvas.stroke(strand[1:-2], width * unit, tone(colour, 0.29), 0.75)
    if "Bangs" in face:
        (_curly_bangs if _curly(face) else _bangs)(sketch)


def _frame(face: Face, side: int) -> tuple[Points, Points]:
    """Map a face and a side, -1 or 1, to the outer and inner contour of the hair there, from the parting to the ear."""
    wide, volume = half_width(face), _volume(face)
    part = 0.0 if _curly(face) else face.hair_part * side
    top, rim = -0.70 + face.hairline, -1.05 - 0.75 * volume
    # The side that the parting leaves more hair to sweeps lower over the forehead.
    sweep = abs(part) / 4.2 * (1 if part < 0 else -1)
    inner = [
        (part, top), (part + 0.25 * (1 - part), top + 0.05 + 0.6 * sweep), (0.75 * wide, -0.46 + sweep),
        (0.90 * wide, -0.22), (0.93 * wide, 0.10),
    ]  # fmt: skip
    outer = [
        (part, rim + 0.02 * abs(part)), (part + 0.5 * (1 - 0.7 * part), rim + 0.10), (wide + 0.6 * volume, -0.62),
        (wide + volume, -0.22), (wide + 0.75 * volume, 0.14),
    ]  # fmt: skip
    return _waved(path(flipped(outer, side)), face), _waved(path(flipped(inner, side)), face)


def _curls(sketch: Sketch, rim: Points) -> None:
    """Draw curls in three rows, along the outline and over the cap."""
    low = _HAT_RIM if "Wearing_Hat" in sketch.face else -math.inf
    for row, (inset, radius) in enumerate(((0.0, 0.15), (0.18, 0.14), (0.34, 0.12))):
        plane = sketch.at(_CAP + 0.1 * row)
        for k, (x, y) in enumerate(rim[2 + 2 * row : len(rim) - 2 - 2 * row : 4]):
            if (row and y > -0.5 - 0.1 * row) or y < low:
                continue
            place = (x * (1 - inset), (y + 0.2) * (1 - inset) - 0.2)
            _curl(sketch, plane, place, radius * (1 + 0.15 * math.sin(2.4 * k + row)))


def _curl(sketch: Sketch, plane: Plane, place: tuple[float, float], radius: float) -> None:
    colour = sketch.palette.hair
    plane.fill(ellipse(*place, radius, radius), colour)
    arc = path([(-0.6 * radius, -0.1 * radius), (0, -0.6 * radius), (0.6 * radius, -0.1 * radius)])
    plane.stroke(moved(arc, *place), 0.035, lighter(colour, 0.22), 0.7)
    plane.stroke(moved(-arc, *place), 0.035, darker(colour, 0.4), 0.6)


def _bangs_end(face: Face) -> float:
    return -0.66 + 0.38 * face.level("Bangs")


def _curly_bangs(sketch: Sketch) -> None:
    low, span = _bangs_end(sketch.face), 0.79 * half_width(sketch.face)
    places = [(span * (k / 3 - 1), low - 0.11 - 0.03 * (k % 2) + 0.06 * abs(k / 3 - 1)) for k in range(7)]
    for x, y in places:
        sketch.on_face().fill(ellipse(x, y + 0.05, 0.14, 0.13), sketch.palette.shadow, 0.5)
    sketch.on_face(0.02).fill(ellipse(0, low - 0.3, 0.87 * span, 0.18), sketch.palette.hair)
    for place in places:
        _curl(sketch, sketch.on_face(0.05), place, 0.14)


def _bangs(sketch: Sketch) -> None:
    face, colour, plane = sketch.face, sketch.palette.hair, sketch.on_face(0.05)
    low, span, wavy = _bangs_end(face), 0.86 * half_width(face), "Wavy_Hair" in face
    lean = 0.025 if face.hair_part > 0 else -0.025
    edge = []
    for x in np.linspace(-1, 1, 6)[:-1]:
        y = low + 0.07 * x * x + lean * x
        if wavy:
            edge += [(x, y - 0.11), (x + 0.2, y + 0.02)]
        else:  # tufts with a notch, which is a corner, between them
            edge += [(x, y - 0.045), (x, y - 0.045), (x + 0.05, y), (x + 0.34, y)]
    edge.append((1.0, low + 0.02 + lean))
    crown = [(0.8, -0.68), (0.4, -0.86), (-0.4, -0.86), (-0.8, -0.68)]
    shape = curve([(span * x, y) for x, y in (*edge, *crown)])
    with sketch.canvas.inside(outline(sketch)):
        plane.fill(moved(shape, 0, 0.06), sketch.palette.shadow, 0.6)
    plane.fill(shape, colour)
    bend = 0.05 if wavy else 0.0
    for k in range(1, 10):
        x = span * (k / 5 - 1)
        strand = path([(0.55 * x, -0.84), (0.85 * x + bend, -0.62), (x - bend, low - 0.05)])
        plane.stroke(strand, 0.03, lighter(colour, 0.28) if k % 2 else darker(colour, 0.3), 0.7)
