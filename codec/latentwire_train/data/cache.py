# SPDX-License-Identifier: Apache-2.0
"""A source of images -> the same source with decoded images in memory, up to a number of bytes.

The cache is filled once and never changes: a shuffled epoch shows each image once, so the image that was not used for
longest is the next one to come, and a cache that throws images out would never hit. Loader workers that are forked
share the images; workers that are started afresh decode every image.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from latentwire_codec.images.geometry import Pixels
from latentwire_core.errors import ImageError
from latentwire_train.data.folder import ImageSource

_CHUNK = 32
"""Images that are decoded before the bound is checked."""


class ImageCache:
    """An `ImageSource` that holds its first images decoded, in `max_bytes` at most; its arrays are read-only."""

    def __init__(self, source: ImageSource, max_bytes: int) -> None:
        self._source = source
        self._held: dict[int, Pixels] = {}
        free = max_bytes
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(source), _CHUNK):
                chunk = range(start, min(start + _CHUNK, len(source)))
                for index, pixels in zip(chunk, pool.map(self._decoded, chunk), strict=True):
                    if pixels is None:
                        continue
                    free -= pixels.nbytes
                    if free < 0:
                        return
                    pixels.setflags(write=False)
                    self._held[index] = pixels

    def __len__(self) -> int:
        return len(self._source)

    def name(self, index: int) -> str:
        """Map an index to the source's name of the image."""
        return self._source.name(index)

    def read(self, index: int) -> Pixels:
        """Map an index to uint8 (H,W,3) RGB; raise what the source raises."""
        held = self._held.get(index)
        return self._source.read(index) if held is None else held

    def _decoded(self, index: int) -> Pixels | None:
        """Return the pixels, or None for a damaged image, which `read` reports later."""
        try:
            return self._source.read(index)
        except (ImageError, OSError):
            return None

    def __getstate__(self) -> dict[str, Any]:
        # A copy for another process would double the memory.
        return self.__dict__ | {"_held": {}}
