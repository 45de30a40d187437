# SPDX-License-Identifier: Apache-2.0
"""Places on a head that is turned -> places on the canvas.

The head's own axes: x to the right of the picture, y down, z towards the viewer, the unit is half the head's height; 0
is in its middle. It is turned about y (yaw), x (pitch) and z (roll) and projected in parallel: what is nearer shifts
further.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from latentwire_lab.faces.canvas import Points
from latentwire_lab.faces.face import Face

_HEAD_SHARE = 0.305  # half the head's height in heights of the picture


@dataclass(frozen=True)
class Pose:
    """Where a head or a body is, and how it is turned.

    Attributes:
        unit: half the head's height, in pixels.
        x: of the head's middle, in pixels.
        y: likewise.
        yaw: in radians, as of `Face`.
        pitch: likewise.
        roll: likewise.
    """

    unit: float
    x: float
    y: float
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    @classmethod
    def of_head(cls, face: Face, side: int) -> "Pose":
        """A face and the canvas' side in pixels -> the head's pose."""
        x, y = side * (0.5 + face.shift_x), side * (0.475 + face.shift_y)
        return cls(side * _HEAD_SHARE * face.scale, x, y, face.yaw, face.pitch, face.roll)

    @classmethod
    def of_body(cls, face: Face, side: int) -> "Pose":
        """A face and the canvas' side in pixels -> the body's pose: below the head, upright, hardly turned."""
        head = cls.of_head(face, side)
        return cls(head.unit, head.x - face.roll * head.unit * 0.5, head.y, face.yaw * 0.3)

    @cached_property
    def _axes(self) -> Points:
        """Where the head's x, y and z point to in the picture, in pixels; float64 (3,2)."""
        sine, cosine, tilt = math.sin(self.yaw), math.cos(self.yaw), math.sin(self.pitch)
        turned = np.array([(cosine, sine * tilt), (0.0, math.cos(self.pitch)), (sine, -cosine * tilt)])
        sine, cosine = math.sin(self.roll), math.cos(self.roll)
        axes: Points = self.unit * turned @ np.array([(cosine, sine), (-sine, cosine)])
        return axes

    @cached_property
    def _origin(self) -> Points:
        return np.array((self.x, self.y))

    def place(self, points: Points, depth: Points | float = 0.0) -> Points:
        """Points and their z -> pixels."""
        flat: Points = points @ self._axes[:2] + self._origin
        nearer: Points = np.multiply.outer(depth, self._axes[2])
        return flat + nearer

    def on_face(self, points: Points, lift: float = 0.0) -> Points:
        """Points on the face, `lift` above it -> pixels."""
        return self.place(points, surface(points) + lift)


def surface(points: Points) -> Points:
    """Points -> the z of the face there, float64 (N,)."""
    squared = (points[:, 0] / 0.86) ** 2 + (points[:, 1] / 1.25) ** 2
    return 0.62 * np.sqrt(np.maximum(1 - squared, 0.0))
