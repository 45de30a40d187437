# SPDX-License-Identifier: Apache-2.0
"""A source of images -> an endless, shuffled sequence of training samples, each a function of (seed, n) alone.

    sample n:  epoch = n // images, place = n % images
               image = permutation(seed, epoch)[place], framing drawn from (seed, n)

So a run that goes on from sample n sees what an uninterrupted run would have seen, with any number of workers, and
several processes (ranks) share one sequence. Every image comes once per epoch.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from latentwire_core.draws import Draws
from latentwire_train.data.crops import Framing
from latentwire_train.data.folder import ImageSource, Problem
from latentwire_train.data.views import Batch, Failure, Ledger, Report, frame

_SHUFFLE, _FRAMING = 1, 2  # purposes of `Draws`
_MAX_TRIES = 32
_PREFETCH = 4
"""Batches that each worker has ready."""

# Pixels, uint8 (3,S,S); the image's index, or -1 where every image failed; the images that were tried before.
_Sample = tuple[Tensor, int, list[Failure]]


@lru_cache(maxsize=4)  # a batch may reach over the end of an epoch
def permutation(seed: int, epoch: int, length: int) -> npt.NDArray[np.int64]:
    """Map a key to the numbers 0..length-1, int64 (length,), read-only, in the order of as many random words."""
    order = np.argsort(Draws(seed, _SHUFFLE, epoch).words(length), kind="stable")
    order.setflags(write=False)
    return order


class SampleStream:
    """An endless sequence of samples, addressed by their number n >= 0.

    An image that is damaged, or smaller than the framing needs, is replaced by the one that follows in the epoch, and
    reported as `Ledger` says. The seed is that of the run, 0 <= seed < 2**64.

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
        max_bad_share: float = 0.01,
        report: Report | None = None,
    ) -> None:
        self._samples = _Samples(source, framing, seed)
        self._ledger = Ledger(source, max_bad_share, report)
        Draws(seed, _SHUFFLE, 0)  # refuses a bad seed now

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The damaged images that were found so far."""
        return self._ledger.problems

    def image_index(self, n: int) -> int:
        """Map the number of a sample to the index of its image, taken to be undamaged."""
        return self._samples.candidate(n, 0)

    def sample(self, n: int) -> Tensor:
        """Map the number of a sample, n >= 0, to uint8 (3,size,size).

        Raises:
            DataError: too many images are damaged.
            ValueError: n is negative.
        """
        pixels, index, failures = self._samples[n]
        self._ledger.note(failures, index >= 0)
        return pixels

    def batches(
        self,
        batch_size: int,
        *,
        start: int = 0,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> Iterator[Batch]:
        """Map a position in the sequence to batches from there on, without end.

        Step k of rank r holds the samples from start + (k * ranks + r) * batch_size on. All ranks together go through
        the sequence once, and the next `start` after k steps is start + k * ranks * batch_size. `workers` processes
        decode; 0 decodes in this one. Pinned batches lie where a GPU can fetch them while it computes.

        Returns:
            Batches of uint8 (batch_size,3,size,size). Taking one raises DataError when too many images are damaged.

        Raises:
            ValueError: a number is out of range.
        """
        if batch_size < 1 or start < 0 or not 0 <= rank < ranks or workers < 0:
            raise ValueError(
                f"batch_size is {batch_size}, start {start}, rank {rank} of {ranks}, workers {workers}; "
                "they must be >= 1, >= 0, below ranks, and >= 0"
            )
        firsts = itertools.count(start + rank * batch_size, ranks * batch_size)
        loader: DataLoader[_Sample] = DataLoader(
            self._samples,
            batch_sampler=(list(range(first, first + batch_size)) for first in firsts),
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin_memory,
            prefetch_factor=_PREFETCH if workers else None,
            # torch draws a base seed for its workers; a draw from the global generator would change the run.
            generator=torch.Generator(),
        )
        return self._checked(iter(loader))

    def _checked(self, loaded: Iterator[tuple[Tensor, Tensor, list[list[Failure]]]]) -> Iterator[Batch]:
        for pixels, indices, failures in loaded:
            for index, tried in zip(indices.tolist(), failures, strict=True):
                self._ledger.note(tried, index >= 0)
            yield Batch(pixels, indices)


@dataclass(frozen=True)
class _Samples(Dataset[_Sample]):
    """Maps n to sample n. A worker gets a copy of it."""

    source: ImageSource
    framing: Framing
    seed: int

    def candidate(self, n: int, attempt: int) -> int:
        """Map the number of a sample to the index of the image to try after `attempt` others."""
        if n < 0:
            raise ValueError(f"sample number is {n}; it must be >= 0")
        epoch, place = divmod(n, len(self.source))
        return int(permutation(self.seed, epoch, len(self.source))[(place + attempt) % len(self.source)])

    def __getitem__(self, n: int) -> _Sample:
        failures: list[Failure] = []
        for attempt in range(min(_MAX_TRIES, len(self.source))):
            index = self.candidate(n, attempt)
            # Earlier failures are not remembered: a replacement depends on n and the files alone.
            square = frame(self.source, index, self.framing, Draws(self.seed, _FRAMING, n))
            if not isinstance(square, str):
                return square, index, failures
            failures.append((index, square))
        return torch.zeros(3, self.framing.size, self.framing.size, dtype=torch.uint8), -1, failures


def _collate(samples: list[_Sample]) -> tuple[Tensor, Tensor, list[list[Failure]]]:
    images, indices, failures = zip(*samples, strict=True)
    if get_worker_info() is None:
        # torch would share this small copy among threads, which on a busy machine took 70 ms to wait for each other.
        pixels = torch.from_numpy(np.stack([image.numpy() for image in images]))
    else:
        pixels = default_collate(list(images))  # straight into the memory shared with the main process
    return pixels, torch.tensor(indices), list(failures)
