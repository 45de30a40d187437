# SPDX-License-Identifier: Apache-2.0
"""Feature maps that are computed when their rows are read: rows top..bottom -> (1,C,bottom-top,W).

A map is stored, or it computes its rows from the rows of another map. A map that is not stored is computed again at
each read: storing trades memory for time. Every map is exact: a strip sees the rows around it, and a normalisation uses
the statistics of the whole image.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentwire_codec.runtime.tiling.convolution import Convolution
from latentwire_codec.runtime.tiling.moments import Moments


class FeatureMap(Protocol):
    """A map (1,C,H,W), read by rows.

    Attributes:
        channels: C.
        height: H.
        width: W.
        dtype: the dtype of its values.
        device: the device of its rows.
        stored_bytes: memory of the stored maps that it is computed from.
        row_elements: elements of the widest map on the way to one of its rows.
    """

    channels: int
    height: int
    width: int
    dtype: torch.dtype
    device: torch.device
    stored_bytes: int
    row_elements: float

    def rows(self, top: int, bottom: int, out: Tensor | None = None) -> Tensor:
        """Return the rows top..bottom-1, 0 <= top < bottom <= H: (1,C,bottom-top,W), in channels_last.

        They are written to `out`; without it they may be a view of the map, and must not be written to.
        """


class Stored:
    """A map in memory, (1,C,H,W) in channels_last; it may lie on another device than the rows that it returns."""

    def __init__(self, values: Tensor, device: torch.device, moments: Moments | None = None) -> None:
        self.values, self.moments = values, moments
        self.device, self.dtype = device, values.dtype
        _, self.channels, self.height, self.width = values.shape
        self.stored_bytes = values.nbytes
        self.row_elements: float = self.channels * self.width

    def rows(self, top: int, bottom: int, out: Tensor | None = None) -> Tensor:
        """Return stored rows."""
        values = self.values[:, :, top:bottom]
        return values.to(self.device) if out is None else out.copy_(values)


class Convolved:
    """A convolution of a map with zeros around it."""

    def __init__(self, source: FeatureMap, convolution: Convolution) -> None:
        self._source, self._convolution = source, convolution
        self.channels = convolution.channels
        self.dtype, self.device = source.dtype, source.device
        self.height, self.width = (self._side(side) for side in (source.height, source.width))
        self.stored_bytes = source.stored_bytes
        seen = source.row_elements * convolution.stride / convolution.scale
        self.row_elements = max(self.channels * self.width, seen)

    def _side(self, side: int) -> int:
        conv = self._convolution
        return ((side + conv.before + conv.after - conv.kernel) // conv.stride + 1) * conv.scale

    def rows(self, top: int, bottom: int, out: Tensor | None = None) -> Tensor:
        """Compute the rows by convolving the rows of the source on which they depend."""
        conv = self._convolution
        first, last = top // conv.scale, -(-bottom // conv.scale)
        padded = self._padded(first, last)
        # The convolution works in whole tiles and blocks: it may give more rows and columns than requested.
        windows = (padded.shape[2] - conv.kernel) // conv.stride + 1
        across = (padded.shape[3] - conv.kernel) // conv.stride + 1
        whole = (1, self.channels, windows * conv.scale, across * conv.scale)
        if out is not None and out.shape == whole and out.is_contiguous(memory_format=torch.channels_last):
            conv(padded, out)
            return out
        roomy = torch.empty(whole, dtype=padded.dtype, device=padded.device, memory_format=torch.channels_last)
        conv(padded, roomy)
        skipped = top - first * conv.scale
        rows = roomy[:, :, skipped : skipped + bottom - top, : self.width]
        return rows if out is None else out.copy_(rows)

    def _padded(self, first: int, last: int) -> Tensor:
        """Return the input of the windows first..last-1, with zeros beyond the map's edges and up to whole tiles."""
        conv, source = self._convolution, self._source
        start = first * conv.stride - conv.before
        stop = (last - 1) * conv.stride - conv.before + conv.kernel
        top, bottom = max(start, 0), min(stop, source.height)
        over = -(last - first) % conv.tile
        across = -(self.width // conv.scale) % conv.tile
        above, below = top - start, stop - bottom + over
        left, right = conv.before, conv.after + across
        if not (above or below or left or right):
            return source.rows(top, bottom)
        shape = (1, source.channels, above + bottom - top + below, left + source.width + right)
        padded = torch.empty(shape, dtype=source.dtype, device=source.device, memory_format=torch.channels_last)
        inside = padded[:, :, above : above + bottom - top, left : left + source.width]
        source.rows(top, bottom, inside)
        padded[:, :, :above].zero_()
        padded[:, :, above + bottom - top :].zero_()
        padded[:, :, :, :left].zero_()
        padded[:, :, :, left + source.width :].zero_()
        return padded


class Pointwise:
    """Base of the maps that keep the shape of another map."""

    def __init__(self, source: FeatureMap) -> None:
        self._source = source
        self.channels, self.height, self.width = source.channels, source.height, source.width
        self.dtype, self.device = source.dtype, source.device
        self.stored_bytes, self.row_elements = source.stored_bytes, source.row_elements


class Rectified(Pointwise):
    """ReLU of a map."""

    def rows(self, top: int, bottom: int, out: Tensor | None = None) -> Tensor:
        """Return rows with negative values set to 0."""
        return torch.clamp(self._source.rows(top, bottom), min=0, out=out)


class Normalised(Pointwise):
    """Group normalisation with the statistics of the whole map, then SiLU on request."""

    def __init__(self, source: FeatureMap, layer: nn.GroupNorm, moments: Moments, silu: bool) -> None:
        super().__init__(source)
        self._silu = silu
        self._factor, self._offset = moments.normalisation(layer)

    def rows(self, top: int, bottom: int, out: Tensor | None = None) -> Tensor:
        """Normalise rows, in float32 at least."""
        rows = self._source.rows(top, bottom)
        same_dtype = rows.dtype == self._factor.dtype
        normal = torch.addcmul(self._offset, rows.to(self._factor.dtype), self._factor, out=out if same_dtype else None)
        if self._silu:
            functional.silu(normal, inplace=True)
        if same_dtype:
            return normal
        return normal.to(rows.dtype) if out is None else out.copy_(normal)


class Sum(Pointwise):
    """A map and a convolution, added."""

    def __init__(self, one: FeatureMap, other: Convolved) -> None:
        super().__init__(other)
        self._one = one
        self.stored_bytes = max(one.stored_bytes, other.stored_bytes)
        self.row_elements = max(one.row_elements, other.row_elements)

    def rows(self, top: int, bottom: int, out: Tensor | None = None) -> Tensor:
        """Add rows."""
        # A convolution returns fresh memory, so that adding in place is safe.
        return self._source.rows(top, bottom, out).add_(self._one.rows(top, bottom))
