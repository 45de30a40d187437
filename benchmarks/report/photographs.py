# SPDX-License-Identifier: Apache-2.0
"""A size -> a real photograph of that size, from scikit-image: what benchmarks of speed encode and send."""

import numpy as np
from skimage import data

from latentwire_codec.images.geometry import Pixels


def photograph(height: int, width: int) -> Pixels:
    """Return uint8 (height,width,3); the photograph is repeated, not enlarged: large files keep their detail."""
    astronaut: Pixels = data.astronaut()
    times = (-(-height // astronaut.shape[0]), -(-width // astronaut.shape[1]), 1)
    return np.ascontiguousarray(np.tile(astronaut, times)[:height, :width])
