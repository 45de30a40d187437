# SPDX-License-Identifier: Apache-2.0
"""A source of images -> every image once, in order, as uint8 tensors: what is measured, and what has labels.

A damaged image is left out of the batches and reported once by name; nothing stands in for it, so that a figure is
never computed twice from the same image.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentwire_train.data.crops import Cover, Draws, Framing
from latentwire_train.data.folder import DataError, ImageSource, Problem
from latentwire_train.data.loading import Batch, Ledger, Made, Report, check_channels, frame, load

_FRAMING = 3  # a purpose of `Draws`


class View:
    """The images of a source, each framed in one fixed way.

    Args:
        source: at least one image.
        framing: `CentreCrop(size)` or `Cover(size)`; a random one is drawn from (0, index), always the same.
        channels: 3 for RGB, 1 for grey.
        max_bad_share: of the source's images that may be damaged before it is an error; one always may.
        report: called once for each damaged image; None logs a warning.

    Raises:
        DataError: the source is empty.
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        source: ImageSource,
        framing: Framing,
        *,
        channels: int = 3,
        max_bad_share: float = 0.01,
        report: Report | None = None,
    ) -> None:
        if len(source) == 0:
            raise DataError("there is no image to look at; give a source with at least one")
        check_channels(channels)
        self.source = source
        self._maker = _ViewMaker(source, framing, channels)
        self._ledger = Ledger(source, max_bad_share, report)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damaged images found so far."""
        return self._ledger.problems

    def image(self, index: int) -> Tensor:
        """An index, 0 <= index < len -> uint8 (channels,size,size).

        Raises:
            DataError: that image is damaged.
            IndexError: there is none of that index.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        made = self._maker.make(index)
        if made.image < 0:
            raise DataError(f"{self.source.name(index)}: {made.failures[0][1]}; leave it out, or use batches()")
        return made.pixels

    def batches(
        self,
        batch_size: int,
        *,
        indices: Sequence[int] | None = None,
        workers: int = 0,
        pin_memory: bool = False,
        start_method: str | None = None,
    ) -> Iterator[Batch]:
        """Indices -> batches of their images in that order; each batch has `batch_size` images or fewer, never none.

        Args:
            batch_size: at most this many images each.
            indices: which images; None for all.
            workers: processes that decode; 0 decodes in this one.
            pin_memory: put the batches where a GPU can fetch them while it computes.
            start_method: of the workers; None for the platform's own.

        Returns:
            Batches of uint8 (B,channels,size,size). Taking one raises DataError when too many images are damaged.

        Raises:
            IndexError: there is no image of an index.
            ValueError: a number is out of range.
        """
        wanted = list(range(len(self)) if indices is None else indices)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be >= 1")
        for index in wanted:
            if not 0 <= index < len(self):
                raise IndexError(f"image {index} of {len(self)}")
        blocks = [wanted[first : first + batch_size] for first in range(0, len(wanted), batch_size)]
        loaded = load(self._maker, blocks, workers=workers, pin_memory=pin_memory, start_method=start_method)
        return self._checked(loaded)

    def _checked(self, loaded: Iterator[tuple[Tensor, Tensor, list[list[tuple[int, str]]]]]) -> Iterator[Batch]:
        for pixels, indices, failures in loaded:
            for tried in failures:
                self._ledger.note(tried)
            good = indices >= 0
            if good.all():
                yield Batch(pixels, indices)
            elif good.any():
                yield Batch(pixels[good], indices[good])


class LabelledView:
    """Images with their attributes, for faces and digits.

    Args:
        source: the images.
        attributes: the names of the A attributes.
        values: int8 (len(source), A): 1 where an image has the attribute, -1 where not.
        framing: how an image becomes a square; an int is short for `Cover(size)`.
        channels: 3 for RGB, 1 for grey.
        max_bad_share: as of `View`.
        report: as of `View`.

    Raises:
        DataError: `values` do not match the images or the names, or hold other numbers than -1 and 1.
    """

    def __init__(
        self,
        source: ImageSource,
        attributes: Sequence[str],
        values: npt.NDArray[np.int8],
        framing: Framing | int,
        *,
        channels: int = 3,
        max_bad_share: float = 0.01,
        report: Report | None = None,
    ) -> None:
        if values.dtype != np.int8 or values.shape != (len(source), len(attributes)):
            raise DataError(
                f"the labels are {values.dtype} {values.shape}; {len(source)} images with {len(attributes)} attributes "
                f"need int8 ({len(source)}, {len(attributes)})"
            )
        if not np.isin(values, (-1, 1)).all():
            raise DataError("the labels hold other numbers than -1 and 1; map what is unknown to an image left out")
        framing = Cover(framing) if isinstance(framing, int) else framing
        self.view = View(source, framing, channels=channels, max_bad_share=max_bad_share, report=report)
        self.attributes = tuple(attributes)
        self.values = torch.from_numpy(values.copy())

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """An index -> uint8 (C,size,size) and int8 (A,); raises DataError for a damaged image."""
        return self.view.image(index), self.values[index]

    def batches(
        self,
        batch_size: int,
        *,
        indices: Sequence[int] | None = None,
        workers: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Indices -> (uint8 (B,C,size,size), int8 (B,A)) of the images that are not damaged; see `View.batches`."""
        found = self.view.batches(batch_size, indices=indices, workers=workers)
        return ((batch.pixels, self.values[batch.indices]) for batch in found)


class _ViewMaker:
    """What a worker needs to frame one image."""

    def __init__(self, source: ImageSource, framing: Framing, channels: int) -> None:
        self._source, self._framing, self._channels = source, framing, channels

    def make(self, n: int) -> Made:
        """An index -> its image, or its failure."""
        made = frame(self._source, n, self._framing, Draws(0, _FRAMING, n), self._channels)
        if not isinstance(made, str):
            return Made(made, n, [])
        size = self._framing.size
        return Made(torch.zeros(self._channels, size, size, dtype=torch.uint8), -1, [(n, made)])
