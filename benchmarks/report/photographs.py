# SPDX-License-Identifier: Apache-2.0
"""A size -> a real photograph of it, from a package: what benchmarks of speed send and encode."""

import numpy as np
from skimage import data

from latentwire_codec.images.geometry import Pixels


def photograph(height: int, width: int) -> Pixels:
    """Return uint8 (height,width,3); beside itself where it is larger than 512, so that files keep their detail."""
    astronaut: Pixels = data.astronaut()
    times = (-(-height // astronaut.shape[0]), -(-width // astronaut.shape[1]), 1)
    return np.ascontiguousarray(np.tile(astronaut, times)[:height, :width])
