# SPDX-License-Identifier: Apache-2.0
"""A face and a canvas -> the poses of head and body, the colours, and the planes to draw on.

The head's own axes: x to the right of the picture, y down, z towards the viewer, the unit is half the head's height; 0
is in its middle. It is turned about y (yaw), x (pitch) and z (roll) and projected in parallel: what is nearer shifts
further.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from latentwire_lab.faces.canvas import Canvas, Colour, Points
from latentwire_lab.faces.face import Face
from latentwire_lab.faces.palette import Palette

_HEAD_SHARE = 0.305  # half the head's height in heights of the picture


@dataclass(frozen=True)
class Pose:
    """Place and turn of a head or a body."""

    unit: float  # half the head's height, in pixels
    x: float  # x of the head's middle, in pixels
    y: float  # y of the head's middle, in pixels
    yaw: float = 0.0  # turn to the right side of the picture, radians
    pitch: float = 0.0  # turn upwards, radians
    roll: float = 0.0  # turn clockwise, radians

    @classmethod
    def of_head(cls, face: Face, side: int) -> "Pose":
        """Map a face and the canvas' side in pixels to the head's pose."""
        x, y = side * (0.5 + face.shift_x), side * (0.475 + face.shift_y)
        return cls(side * _HEAD_SHARE * face.scale, x, y, face.yaw, face.pitch, face.roll)

    @cached_property
    def _axes(self) -> Points:
        """The directions of the head's x, y and z in the picture, in pixels; float64 (3,2)."""
        sine, cosine, tilt = math.sin(self.yaw), math.cos(self.yaw), math.sin(self.pitch)
        turned = np.array([(cosine, sine * tilt), (0.0, math.cos(self.pitch)), (sine, -cosine * tilt)])
        sine, cosine = math.sin(self.roll), math.cos(self.roll)
        axes: Points = self.unit * turned @ np.array([(cosine, sine), (-sine, cosine)])
        return axes

    def place(self, points: Points, depth: Points | float = 0.0) -> Points:
        """Map points and their z to pixels."""
        flat: Points = points @ self._axes[:2] + np.array((self.x, self.y))
        nearer: Points = np.multiply.outer(depth, self._axes[2])
        return flat + nearer

    def on_face(self, points: Points, lift: float = 0.0) -> Points:
        """Map points at `lift` above the face to pixels."""
        return self.place(points, surface(points) + lift)


def surface(points: Points) -> Points:
    """Map points to the z of the face there, float64 (N,)."""
    squared = (points[:, 0] / 0.86) ** 2 + (points[:, 1] / 1.25) ** 2
    return 0.62 * np.sqrt(np.maximum(1 - squared, 0.0))


@dataclass(frozen=True)
class Plane:
    """A canvas, in the axes and the unit of a pose."""

    canvas: Canvas
    unit: float  # unit of lengths, in pixels
    place: Callable[[Points], Points]  # maps points of the plane to pixels

    def fill(self, outline: Points, colour: Colour, opacity: float = 1.0) -> None:
        """Fill the inside of an outline."""
        self.canvas.fill(self.place(outline), colour, opacity)

    def stroke(
        self, line: Points, width: float, colour: Colour, opacity: float = 1.0, *, ends: tuple[float, float] = (0, 0)
    ) -> None:
        """Draw an open line; `ends` are the shares of its width at the ends."""
        self.canvas.stroke(self.place(line), width * self.unit, colour, opacity, ends=ends)

    def glow(self, x: float, y: float, radii: tuple[float, float], colour: Colour, opacity: float) -> None:
        """Draw a soft spot about the point (x, y), with its half width and half height."""
        centre = self.place(np.array([(x, y)]))
        self.canvas.glow(centre, radii[0] * self.unit, radii[1] * self.unit, colour, opacity)

    @contextmanager
    def inside(self, outline: Points) -> Iterator[None]:
        """Clip the drawing meanwhile to the inside of the outline."""
        with self.canvas.inside(self.place(outline)):
            yield


@dataclass(frozen=True)
class Sketch:
    """A face that is being drawn."""

    canvas: Canvas
    face: Face
    palette: Palette
    head: Pose
    body: Pose

    @classmethod
    def of(cls, face: Face, size: int) -> "Sketch":
        """Map a face and the size of its picture in pixels to an empty sketch."""
        canvas = Canvas(size)
        head = Pose.of_head(face, canvas.side)
        # The body is below the head, upright, and turned less than the head.
        body = Pose(head.unit, head.x - face.roll * head.unit * 0.5, head.y, face.yaw * 0.3)
        return cls(canvas, face, Palette.of(face), head, body)

    @property
    def dark_side(self) -> int:
        """The side of the picture away from the light: -1 or 1."""
        return -1 if self.face.light_x > 0 else 1

    def on_face(self, lift: float = 0.0) -> Plane:
        """Return the bent plane at a height above the face."""
        return Plane(self.canvas, self.head.unit, lambda points: self.head.on_face(points, lift))

    def at(self, depth: float) -> Plane:
        """Return the flat plane at a depth (z) of the head."""
        return Plane(self.canvas, self.head.unit, lambda points: self.head.place(points, depth))

    def on_body(self) -> Plane:
        """Return the flat plane of the body."""
        return Plane(self.canvas, self.body.unit, self.body.place)
