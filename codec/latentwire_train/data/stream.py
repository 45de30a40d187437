# SPDX-License-Identifier: Apache-2.0
"""A source of images -> an endless, shuffled sequence of training samples, each a function of (seed, n) alone.

    sample n:  epoch = n // images, place = n % images
               image = permutation(seed, epoch)[place], framing drawn from (seed, n)

So a run that goes on from sample n sees what an uninterrupted one would have seen, with any number of workers, and
several processes (ranks) share one sequence. Every image comes once per epoch.
"""

import itertools
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentwire_train.data.crops import Draws, Framing
from latentwire_train.data.folder import DataError, ImageSource, Problem
from latentwire_train.data.loading import Batch, Ledger, Made, Report, check_channels, frame, load

_SHUFFLE, _FRAMING = 1, 2  # purposes of `Draws`
_MAX_TRIES = 32


@lru_cache(maxsize=4)  # a batch may reach over the end of an epoch
def permutation(seed: int, epoch: int, length: int) -> npt.NDArray[np.int64]:
    """A key -> the numbers 0..length-1, int64 (length,), read-only, in the order of as many random 64-bit words."""
    order = np.argsort(Draws(seed, _SHUFFLE, epoch).words(length), kind="stable")
    order.setflags(write=False)
    return order


class SampleStream:
    """An endless sequence of samples, addressed by their number n >= 0.

    A damaged image, or one that is smaller than the framing needs, is replaced by the one that follows in the epoch,
    and reported once by name.

    Args:
        source: at least one image.
        framing: what is cut from each, such as `RandomCrop(256)`.
        seed: of the run, 0 <= seed < 2**64.
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
        seed: int,
        channels: int = 3,
        max_bad_share: float = 0.01,
        report: Report | None = None,
    ) -> None:
        if len(source) == 0:
            raise DataError("there is no image to train on; give a source with at least one")
        check_channels(channels)
        self._maker = _StreamMaker(source, framing, seed, channels)
        self._ledger = Ledger(source, max_bad_share, report)
        Draws(seed, _SHUFFLE, 0)  # refuses a bad seed now

    @property
    def epoch_size(self) -> int:
        """Samples in an epoch: one of each image."""
        return len(self._maker.source)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damaged images found so far."""
        return self._ledger.problems

    def image_index(self, n: int) -> int:
        """The number of a sample -> the index of its image, if that is not damaged."""
        return self._maker.candidate(n, 0)

    def sample(self, n: int) -> Tensor:
        """The number of a sample, n >= 0 -> uint8 (channels,size,size).

        Raises:
            DataError: too many images are damaged.
            ValueError: n is negative.
        """
        made = self._maker.make(n)
        self._ledger.note(made.failures)
        if made.image < 0:
            raise self._ledger.give_up(made.failures)
        return made.pixels

    def batches(
        self,
        batch_size: int,
        *,
        start: int = 0,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 0,
        prefetch: int = 4,
        pin_memory: bool = False,
        start_method: str | None = None,
    ) -> Iterator[Batch]:
        """A position in the sequence -> batches from there on, without end.

        Step k of rank r holds the samples from start + (k * ranks + r) * batch_size on: all ranks together go through
        the sequence once, and the next `start` after k steps is start + k * ranks * batch_size.

        Args:
            batch_size: of this rank.
            start: the first sample of rank 0.
            rank: of this process, 0 <= rank < ranks.
            ranks: processes that train together.
            workers: processes that decode; 0 decodes in this one.
            prefetch: batches that each worker has ready.
            pin_memory: put the batches where a GPU can fetch them while it computes.
            start_method: of the workers; None for the platform's own.

        Returns:
            Batches of uint8 (batch_size,channels,size,size). Taking one raises DataError when too many images are
            damaged.

        Raises:
            ValueError: a number is out of range.
        """
        if batch_size < 1 or start < 0 or not 0 <= rank < ranks:
            raise ValueError(
                f"batch_size is {batch_size}, start {start}, rank {rank} of {ranks}; "
                "they must be >= 1, >= 0, and below ranks"
            )
        firsts = itertools.count(start + rank * batch_size, ranks * batch_size)
        loaded = load(
            self._maker,
            _Blocks(firsts, batch_size),
            workers=workers,
            prefetch=prefetch,
            pin_memory=pin_memory,
            start_method=start_method,
        )
        return self._checked(loaded)

    def _checked(self, loaded: Iterator[tuple[Tensor, Tensor, list[list[tuple[int, str]]]]]) -> Iterator[Batch]:
        for pixels, indices, failures in loaded:
            for index, tried in zip(indices.tolist(), failures, strict=True):
                self._ledger.note(tried)
                if index < 0:
                    raise self._ledger.give_up(tried)
            yield Batch(pixels, indices)


class _Blocks:
    """First numbers -> lists of `size` consecutive numbers."""

    def __init__(self, firsts: Iterator[int], size: int) -> None:
        self._firsts, self._size = firsts, size

    def __iter__(self) -> Iterator[list[int]]:
        return (list(range(first, first + self._size)) for first in self._firsts)


class _StreamMaker:
    """What a worker needs to make samples."""

    def __init__(self, source: ImageSource, framing: Framing, seed: int, channels: int) -> None:
        self.source, self._framing, self._seed, self._channels = source, framing, seed, channels

    def candidate(self, n: int, attempt: int) -> int:
        """The number of a sample -> the index of the image to try after `attempt` others."""
        if n < 0:
            raise ValueError(f"sample number is {n}; it must be >= 0")
        epoch, place = divmod(n, len(self.source))
        return int(permutation(self._seed, epoch, len(self.source))[(place + attempt) % len(self.source)])

    def make(self, n: int) -> Made:
        """The number of a sample -> the sample, of the first image from its place on that can be used."""
        failures: list[tuple[int, str]] = []
        for attempt in range(min(_MAX_TRIES, len(self.source))):
            index = self.candidate(n, attempt)
            # Nothing is remembered of images that failed: what stands for them depends on n and the files alone.
            made = frame(self.source, index, self._framing, Draws(self._seed, _FRAMING, n), self._channels)
            if not isinstance(made, str):
                return Made(made, index, failures)
            failures.append((index, made))
        size = self._framing.size
        return Made(torch.zeros(self._channels, size, size, dtype=torch.uint8), -1, failures)
