# SPDX-License-Identifier: Apache-2.0
"""A feature map -> a stored feature map, strip by strip from the top to the bottom."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from latentwire_codec.runtime.tiling.feature_map import FeatureMap, Stored
from latentwire_codec.runtime.tiling.moments import Moments

# Strips begin at multiples of STEP rows, so that they begin at a Winograd tile, also before an upsampling.
STEP = 8
# Elements of a strip on a CPU: 8 MiB of float32 are still in the cache when the next layer reads them.
CPU_STRIP = 1 << 21
# A strip on a GPU takes 1/32 of the budget: a layer has several strips in work.
GPU_SHARE = 32


@dataclass(frozen=True)
class Sweep:
    """Device, dtype and memory for the computation of maps.

    Attributes:
        device: the device that computes the maps.
        dtype: the dtype of the maps.
        budget_bytes: memory for stored maps. A map that the next map needs is stored even beyond this budget.
        pause: a function that is called after each strip.
    """

    device: torch.device
    dtype: torch.dtype
    budget_bytes: int
    pause: Callable[[], None]

    def fits(self, *maps: FeatureMap | int) -> bool:
        """Tell whether the budget has room for all items together: maps, once stored, and numbers of bytes."""
        return sum(item if isinstance(item, int) else self.bytes(item) for item in maps) <= self.budget_bytes

    def bytes(self, feature: FeatureMap) -> int:
        """Return the memory of a map once it is stored."""
        return feature.channels * feature.height * feature.width * self.dtype.itemsize

    def store(self, source: FeatureMap, into: Stored | None = None, measured: bool = False) -> Stored:
        """Compute a map and store it.

        Args:
            source: the map.
            into: a stored map to overwrite; None: new memory. The source may read the overwritten map, but each row
                only the rows at most STEP above and below.
            measured: whether to compute the map's moments, too.
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
                # Write a strip after the next strip is computed: then no later strip reads the overwritten rows.
                if behind is not None:
                    behind[0].copy_(behind[1])
                behind = place, rows
            self.pause()
        if behind is not None:
            behind[0].copy_(behind[1])
        return Stored(values, self.device, moments)

    def moments(self, source: FeatureMap) -> Moments:
        """Return the moments of a map; compute the map where its moments are not stored."""
        if isinstance(source, Stored) and source.moments is not None:
            return source.moments
        moments = Moments(source.channels, self.device)
        for top, bottom in self._strips(source):
            moments.add(source.rows(top, bottom))
            self.pause()
        return moments

    def _room(self, source: FeatureMap) -> Tensor:
        """Return memory for a map: on the device, or on the CPU where the device has no room."""
        shape = (1, source.channels, source.height, source.width)
        home = self.device if self.fits(source.stored_bytes, source) else torch.device("cpu")
        return torch.empty(shape, dtype=self.dtype, device=home, memory_format=torch.channels_last)

    def _strips(self, source: FeatureMap) -> Iterator[tuple[int, int]]:
        elements = CPU_STRIP if self.device.type == "cpu" else self.budget_bytes // (GPU_SHARE * self.dtype.itemsize)
        rows = max(1, int(elements // (source.row_elements * STEP))) * STEP
        for top in range(0, source.height, rows):
            yield top, min(top + rows, source.height)
