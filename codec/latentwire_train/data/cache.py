# SPDX-License-Identifier: Apache-2.0
"""A source of images -> the same source, with as many decoded images in memory as fit a number of bytes.

Images are kept until the bound is reached and none is ever thrown out: in a shuffled epoch each image comes once, so
the one that was not used for longest is the next to come, and an LRU cache smaller than the set would never hit.

The bound holds for a process and its loader workers together. What `fill` decodes before the workers are forked is
shared by all of them; what they decode later themselves each keeps for itself, within its part of what is left. Workers
that are not forked but started afresh begin with nothing.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch.utils.data import get_worker_info

from latentwire_codec.images.geometry import Pixels
from latentwire_core.errors import ImageError
from latentwire_train.data.folder import ImageSource, Progress

_FILL_CHUNK = 32


class ImageCache:
    """An `ImageSource` that remembers decoded pixels.

    What it returns is shared: a caller must not write to it (the arrays are read-only).

    Args:
        source: what to read from.
        max_bytes: of pixels to keep, 3 bytes each; 0 keeps nothing.

    Raises:
        ValueError: `max_bytes` is negative.
    """

    def __init__(self, source: ImageSource, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes is {max_bytes}; it must be >= 0")
        self.source = source
        self.max_bytes = max_bytes
        self._forget()

    def _forget(self) -> None:
        self._kept: dict[int, Pixels] = {}
        self._held_bytes = 0
        self._process: int | None = os.getpid()
        self._limit = self.max_bytes

    def __len__(self) -> int:
        return len(self.source)

    @property
    def held_bytes(self) -> int:
        """Of pixels in memory, as this process sees it."""
        return self._held_bytes

    @property
    def held_images(self) -> int:
        """In memory, as this process sees it."""
        return len(self._kept)

    def name(self, index: int) -> str:
        """An index -> the source's name of it."""
        return self.source.name(index)

    def read(self, index: int) -> Pixels:
        """An index -> uint8 (H,W,3) RGB, read-only; raises what the source raises."""
        pixels = self._kept.get(index)
        if pixels is None:
            pixels = self.source.read(index)
            self._keep(index, pixels)
        return pixels

    def fill(self, *, threads: int | None = None, progress: Progress | None = None) -> None:
        """Decode images, in order, until the bound is reached; damaged ones are left for `read` to name.

        Args:
            threads: that decode at once; None for one per processor.
            progress: called with the number of images looked at and of all.
        """
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            for start in range(0, len(self), _FILL_CHUNK):
                chunk = range(start, min(start + _FILL_CHUNK, len(self)))
                full = False
                for index, pixels in zip(chunk, pool.map(self._try, chunk), strict=True):
                    if pixels is not None and index not in self._kept:
                        full = not self._keep(index, pixels) or full
                if progress is not None:
                    progress(len(self) if full else chunk.stop, len(self))
                if full:
                    return

    def _try(self, index: int) -> Pixels | None:
        if index in self._kept:
            return None
        try:
            return self.source.read(index)
        except (ImageError, OSError):
            return None

    def _keep(self, index: int, pixels: Pixels) -> bool:
        """Keep pixels if they fit; say whether they do."""
        if self._process != os.getpid():
            # A worker: what was held when it was forked is shared, what is left is divided.
            worker = get_worker_info()
            self._limit = self._held_bytes + (self._limit - self._held_bytes) // (worker.num_workers if worker else 1)
            self._process = os.getpid()
        pixels.setflags(write=False)
        if self._held_bytes + pixels.nbytes > self._limit:
            return False
        self._kept[index] = pixels
        self._held_bytes += pixels.nbytes
        return True

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process would hold everything again.
        return {"source": self.source, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.source, self.max_bytes = state["source"], state["max_bytes"]
        self._forget()
        self._process = None  # a worker does not know yet that it is one
