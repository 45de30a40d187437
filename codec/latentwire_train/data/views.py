# SPDX-License-Identifier: Apache-2.0
"""A source of images -> every image once, in order, as uint8 tensors: the images to measure on.

A damaged image is left out of the batches and reported once by name. No other image stands in for it, so that no image
counts twice in a figure.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from latentwire_core.draws import Draws
from latentwire_train.data.crops import Framing
from latentwire_train.data.folder import ImageSource
from latentwire_train.data.loading import Batch, Ledger, Report, frame

_FRAMING = 3  # a purpose of `Draws`
_MAX_BAD_SHARE = 0.01


class View:
    """The images of a source, each framed in one fixed way; raises what `Ledger` raises.

    Args:
        source: at least one image.
        framing: `CentreCrop(size)` or `Cover(size)`; a random framing is drawn from (0, index), always the same.
        report: called once for each damaged image; None logs a warning.
    """

    def __init__(self, source: ImageSource, framing: Framing, *, report: Report | None = None) -> None:
        self._source, self._framing = source, framing
        self._ledger = Ledger(source, _MAX_BAD_SHARE, report)

    def __len__(self) -> int:
        return len(self._source)

    def batches(self, batch_size: int, indices: Sequence[int] | None = None) -> Iterator[Batch]:
        """Map indices, 0 <= index < len, or None for all, to batches of their images, in that order.

        Returns:
            Batches of uint8 (B,3,size,size), 1 <= B <= batch_size.

        Raises:
            DataError: more than one image in a hundred, and more than one image, is damaged.
        """
        wanted = range(len(self)) if indices is None else indices
        for first in range(0, len(wanted), batch_size):
            good: dict[int, Tensor] = {}
            for place, index in enumerate(wanted[first : first + batch_size], first):
                square = frame(self._source, index, self._framing, Draws(0, _FRAMING, index))
                if isinstance(square, str):
                    self._ledger.note([(index, square)])
                else:
                    good[place] = square
            if good:
                yield Batch(torch.stack(list(good.values())), torch.tensor([wanted[place] for place in good]))
