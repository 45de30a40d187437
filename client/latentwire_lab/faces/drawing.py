# SPDX-License-Identifier: Apache-2.0
"""A face's description and a size -> the picture."""

from latentwire_codec.images.geometry import Pixels
from latentwire_lab.faces import clothes, features, hair, head, worn
from latentwire_lab.faces.backdrop import air, backdrop
from latentwire_lab.faces.face import Face
from latentwire_lab.faces.sketch import Sketch

REVISION = 1
"""It goes up when the same description gives another picture, or the same numbers another description."""

MIN_SIZE, MAX_SIZE = 32, 512

# From back to front.
_PARTS = (
    backdrop, clothes.torso, hair.back, head.neck, clothes.collar, head.ears, head.skin, features.eyes, features.nose,
    features.mouth, features.beard, hair.front, features.brows, worn.hat, worn.glasses, worn.earrings, air,
)  # fmt: skip


def check_size(size: int) -> None:
    """Raise ValueError for a size in pixels that is out of range."""
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f"size is {size}; it must be {MIN_SIZE}..{MAX_SIZE} px")


def draw(face: Face, size: int) -> Pixels:
    """Map a face and the side of its picture in pixels, 32..512, to uint8 (size,size,3) RGB.

    Raises:
        ValueError: the size is out of range.
    """
    check_size(size)
    sketch = Sketch.of(face, size)
    for part in _PARTS:
        part(sketch)
    return sketch.canvas.result()
