# SPDX-License-Identifier: Apache-2.0
"""A feature map -> a stored one, strip by strip from the top to the bottom."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from latentwire_codec.runtime.tiling.feature_map import FeatureMap, Stored
from latentwire_codec.runtime.tiling.moments import Moments

# Strips begin at multiples of it: of Winograd's tiles, also before an upsampling.
STEP = 8
# Elements of a strip on a CPU: 8 MiB of float32 are still in the cache when the next layer reads them.
CPU_STRIP = 1 << 21
# Strips of a GPU take this share of the budget: a layer has several in work.
GPU_SHARE = 32


@dataclass(frozen=True)
class Sweep:
    """How maps are computed.

    Attributes:
        device: where.
        dtype: of the maps.
        budget_bytes: what maps in memory may take; a map that has to be kept for the next is kept beyond it.
        pause: called after each strip.
    """

    device: torch.device
    dtype: torch.dtype
    budget_bytes: int
    pause: Callable[[], None]

    def fits(self, *maps: FeatureMap | int) -> bool:
        """Tell whether the budget has room for maps to be stored, and for bytes that are."""
        return sum(item if isinstance(item, int) else self.bytes(item) for item in maps) <= self.budget_bytes

    def bytes(self, feature: FeatureMap) -> int:
        """Return what a map takes once it is stored."""
        return feature.channels * feature.height * feature.width * self.dtype.itemsize

    def store(self, source: FeatureMap, into: Stored | None = None, measured: bool = False) -> Stored:
        """Compute a map and keep it.

        Args:
            source: the map.
            into: one whose values it takes the place of; it may be computed from them, and from no more than STEP
                rows above and below its own.
            measured: whether its moments are wanted.
        """
        moments = Moments(source.channels, self.device) if measured else None
        values = self._room(source) if into is None else into.values
        direct = into is None and values.device == self.device
        behind: tuple[Tensor, Tensor] | None = None
        for top, bottom in self._strips(source):
            place = values[:, :, top:bottom]
            rows = source.rows(top, bottom, place if direct else None)
            if moments is not None:
                moments.add(rows)
            if not direct:
                # One strip late: what is written over is not looked at any more.
                if behind is not None:
                    behind[0].copy_(behind[1])
                behind = place, rows
            self.pause()
        if behind is not None:
            behind[0].copy_(behind[1])
        return Stored(values, self.device, moments)

    def moments(self, source: FeatureMap) -> Moments:
        """Return the moments of a map; where it has not kept them, it is computed for them."""
        if isinstance(source, Stored) and source.moments is not None:
            return source.moments
        moments = Moments(source.channels, self.device)
        for top, bottom in self._strips(source):
            moments.add(source.rows(top, bottom))
            self.pause()
        return moments

    def _room(self, source: FeatureMap) -> Tensor:
        """Return memory for a map: on the device, or beside it where the device has no room."""
        shape = (1, source.channels, source.height, source.width)
        home = self.device if self.fits(source.stored_bytes, source) else torch.device("cpu")
        return torch.empty(shape, dtype=self.dtype, device=home, memory_format=torch.channels_last)

    def _strips(self, source: FeatureMap) -> Iterator[tuple[int, int]]:
        elements = CPU_STRIP if self.device.type == "cpu" else self.budget_bytes // (GPU_SHARE * self.dtype.itemsize)
        rows = max(1, int(elements // (source.row_elements * STEP))) * STEP
        for top in range(0, source.height, rows):
            yield top, min(top + rows, source.height)
