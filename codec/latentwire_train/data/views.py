# SPDX-License-Identifier: Apache-2.0
"""A source of images -> uint8 tensors; damaged images -> a report by name, and an error when there are too many.

A damaged image does not stop a run: `stream.py` takes another image in its place. A view, of the images to measure on,
leaves it out, so that no image counts twice in a figure.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from latentwire_codec.images.pixels import to_float
from latentwire_core.draws import Draws
from latentwire_core.errors import DataError, ImageError
from latentwire_train.data.crops import Framing
from latentwire_train.data.folder import ImageSource, Problem, describe, explain

_FRAMING = 3  # a purpose of `Draws`
_MAX_BAD_SHARE = 0.01
_log = logging.getLogger("latentwire.train")

Report = Callable[[Problem], None]
"""Called once for each damaged image."""

Failure = tuple[int, str]
"""The index of a damaged image, and the reason."""


class Batch(NamedTuple):
    """Images of one step: uint8 (B,3,S,S), contiguous, and their indices in the source, int64 (B,)."""

    pixels: Tensor
    indices: Tensor

    def images(self, device: torch.device | str) -> Tensor:
        """Return the pixels on a device as float32 (B,3,S,S) in [-1,1]."""
        return to_float(self.pixels.to(device, non_blocking=True).permute(0, 2, 3, 1))


class Ledger:
    """The damaged images that were found so far in a source; each is reported once, by default as a warning.

    The share `max_bad_share` of the images may be damaged; one image always may.

    Raises:
        DataError: the source is empty.
        ValueError: the share is not in 0..1.
    """

    def __init__(self, source: ImageSource, max_bad_share: float, report: Report | None = None) -> None:
        if not 0 <= max_bad_share <= 1:
            raise ValueError(f"max_bad_share is {max_bad_share}; it must lie in 0..1")
        if len(source) == 0:
            raise DataError("there is no image to take; give a source with at least one")
        self._source, self._max_bad_share = source, max_bad_share
        self._report = report or (lambda problem: _log.warning("skipped %s", problem))
        self._found: dict[int, Problem] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The damaged images, in the order in which they were found."""
        return tuple(self._found.values())

    def note(self, failures: Sequence[Failure], replaced: bool = True) -> None:
        """Record the failures of a sample, and report each image that was not reported before.

        Args:
            failures: the damaged images that the sample met.
            replaced: whether another image took their place.

        Raises:
            DataError: more than the allowed share of the images is damaged, or no image replaced the damaged ones.
        """
        for index, reason in failures:
            if index not in self._found:
                self._found[index] = problem = Problem(self._source.name(index), reason)
                self._report(problem)
        if len(self._found) > max(1, int(self._max_bad_share * len(self._source))):
            raise DataError(
                f"{len(self._found)} of {len(self._source)} images cannot be decoded, more than the allowed "
                f"share of {self._max_bad_share}: {describe(self.problems)}; repair or remove them"
            )
        if not replaced:
            tried = describe([self._found[index] for index, _ in failures])
            raise DataError(f"{len(failures)} images in a row cannot be decoded: {tried}; is the disk there?")


def frame(source: ImageSource, index: int, framing: Framing, draws: Draws) -> Tensor | str:
    """Map an image of a source to uint8 (3,size,size), or to the reason why it cannot be used."""
    try:
        square = framing(source.read(index), draws)
    except (ImageError, OSError) as error:
        return explain(error)
    return torch.from_numpy(square.transpose(2, 0, 1).copy())


class View:
    """The images of a source, each framed in one fixed way: a random framing is drawn from (0, index).

    Every image comes once, in order. Raises what `Ledger` raises.
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
