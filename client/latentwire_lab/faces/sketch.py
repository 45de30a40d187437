# SPDX-License-Identifier: Apache-2.0
"""A face and a canvas -> what the parts of the face are drawn with: its poses, its colours, and planes to draw on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from latentwire_lab.faces.canvas import Canvas, Colour, Points
from latentwire_lab.faces.face import Face
from latentwire_lab.faces.palette import Palette
from latentwire_lab.faces.pose import Pose


@dataclass(frozen=True)
class Plane:
    """A canvas that is drawn on in the axes and the unit of a pose.

    Attributes:
        canvas: what is drawn on.
        unit: of lengths, in pixels.
        place: maps points of the plane to pixels.
    """

    canvas: Canvas
    unit: float
    place: Callable[[Points], Points]

    def fill(self, outline: Points, colour: Colour, opacity: float = 1.0) -> None:
        """Fill the inside of an outline."""
        self.canvas.fill(self.place(outline), colour, opacity)

    def stroke(
        self, line: Points, width: float, colour: Colour, opacity: float = 1.0, *, ends: tuple[float, float] = (0, 0)
    ) -> None:
        """Draw an open line; `ends` are the shares of its width that are left there."""
        self.canvas.stroke(self.place(line), width * self.unit, colour, opacity, ends=ends)

    def glow(self, x: float, y: float, radii: tuple[float, float], colour: Colour, opacity: float) -> None:
        """Draw a soft spot."""
        centre = self.place(np.array([(x, y)]))
        self.canvas.glow(centre, radii[0] * self.unit, radii[1] * self.unit, colour, opacity)

    @contextmanager
    def inside(self, outline: Points) -> Iterator[None]:
        """Let what is drawn meanwhile appear inside the outline only."""
        with self.canvas.inside(self.place(outline)):
            yield


@dataclass(frozen=True)
class Sketch:
    """A face on its way to become a picture.

    Attributes:
        canvas: what is drawn on.
        face: what is drawn.
        palette: its colours.
        head: the pose of its head.
        body: the pose of its body.
    """

    canvas: Canvas
    face: Face
    palette: Palette
    head: Pose
    body: Pose

    @classmethod
    def of(cls, face: Face, size: int) -> "Sketch":
        """A face and the size of its picture in pixels -> an empty sketch."""
        canvas = Canvas(size)
        return cls(canvas, face, Palette.of(face), Pose.of_head(face, canvas.side), Pose.of_body(face, canvas.side))

    @property
    def dark_side(self) -> int:
        """-1 or 1: the side of the picture that the light does not come from."""
        return -1 if self.face.light_x > 0 else 1

    def on_face(self, lift: float = 0.0) -> Plane:
        """A height above the face -> the bent plane there."""
        return Plane(self.canvas, self.head.unit, lambda points: self.head.on_face(points, lift))

    def at(self, depth: float) -> Plane:
        """A z of the head -> the flat plane there."""
        return Plane(self.canvas, self.head.unit, lambda points: self.head.place(points, depth))

    def on_body(self) -> Plane:
        """The flat plane of the body."""
        return Plane(self.canvas, self.body.unit, self.body.place)
