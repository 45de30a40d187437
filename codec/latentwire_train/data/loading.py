# SPDX-License-Identifier: Apache-2.0
"""Numbers of samples -> batches of uint8 tensors, made by worker processes, in order, whatever their number.

A damaged image is no reason to stop: it is reported once, by name, and what stands in for it is decided by the
caller (`stream.py` takes another image, `views.py` leaves it out). When more than a stated share of the images is
damaged, the data is at fault and a `DataError` says so, in the process that asked for the batches.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from latentwire_codec.images.geometry import Pixels
from latentwire_core.errors import ImageError
from latentwire_train.data.crops import Draws, Framing
from latentwire_train.data.folder import DataError, ImageSource, Problem, describe, explain

_log = logging.getLogger("latentwire.train")

Report = Callable[[Problem], None]
"""Called once for each damaged image."""


class Batch(NamedTuple):
    """Images of one step.

    Attributes:
        pixels: uint8 (B,C,H,W), contiguous.
        indices: int64 (B,), which images of the source they are.
    """

    pixels: Tensor
    indices: Tensor


class Made(NamedTuple):
    """One sample as a worker sends it.

    Attributes:
        pixels: uint8 (C,H,W); zeros where nothing could be read.
        image: its index in the source; -1 where nothing could be read.
        failures: (index, reason) of each image that was tried before.
    """

    pixels: Tensor
    image: int
    failures: list[tuple[int, str]]


class Maker(Protocol):
    """The number of a sample -> the sample; in a worker, so it must pickle and never raise for a damaged image."""

    def make(self, n: int) -> Made:
        """Map the number of a sample to the sample."""


class Ledger:
    """What was found damaged so far in a source.

    Args:
        source: whose names are reported.
        max_bad_share: of its images may be damaged; one always may.
        report: called once for each; None logs a warning.

    Raises:
        ValueError: the share is not in 0..1.
    """

    def __init__(self, source: ImageSource, max_bad_share: float, report: Report | None = None) -> None:
        if not 0 <= max_bad_share <= 1:
            raise ValueError(f"max_bad_share is {max_bad_share}; it must lie in 0..1")
        self.allowed = max(1, int(max_bad_share * len(source)))
        self._source = source
        self._max_bad_share = max_bad_share
        self._report = report or (lambda problem: _log.warning("skipped %s", problem))
        self._found: dict[int, Problem] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found, in the order of finding."""
        return tuple(self._found.values())

    def note(self, failures: Sequence[tuple[int, str]]) -> None:
        """Failures of one sample -> nothing; new ones are reported.

        Raises:
            DataError: they are more than the allowed share.
        """
        for index, reason in failures:
            if index not in self._found:
                self._found[index] = problem = Problem(self._source.name(index), reason)
                self._report(problem)
        if len(self._found) > self.allowed:
            raise DataError(
                f"{len(self._found)} of {len(self._source)} images cannot be decoded, more than the share of "
                f"{self._max_bad_share} that is passed over: {describe(self.problems)}; repair or remove them"
            )

    def give_up(self, failures: Sequence[tuple[int, str]]) -> DataError:
        """The failures of a sample for which nothing could be read -> the error to raise."""
        problems = [Problem(self._source.name(index), reason) for index, reason in failures]
        return DataError(f"{len(problems)} images in a row cannot be decoded: {describe(problems)}; is the disk there?")


def frame(source: ImageSource, index: int, framing: Framing, draws: Draws, channels: int) -> Tensor | str:
    """One image of a source -> uint8 (channels,size,size), or the reason why it cannot be used."""
    try:
        return to_tensor(framing(source.read(index), draws), channels)
    except (ImageError, OSError) as error:
        return explain(error)


def to_tensor(pixels: Pixels, channels: int = 3) -> Tensor:
    """uint8 (H,W,3) RGB -> uint8 (channels,H,W); one channel is luma (ITU-R 601), exact where R = G = B."""
    if channels == 3:
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    # The weights add up to 2**16, so that grey stays what it is.
    luma = (pixels.astype(np.uint32) @ _LUMA + 0x8000) >> 16
    return torch.from_numpy(luma.astype(np.uint8)[None])


_LUMA = np.array([19595, 38470, 7471], np.uint32)


def check_channels(channels: int) -> None:
    """A number of channels -> nothing; raise ValueError unless it is 1 (grey) or 3 (RGB)."""
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}; it must be 1 (grey) or 3 (RGB)")


class _Samples(Dataset[Made]):
    """A maker as torch's loader sees it."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker

    def __getitem__(self, n: int) -> Made:
        return self._maker.make(n)


def _collate(samples: list[Made]) -> tuple[Tensor, Tensor, list[list[tuple[int, str]]]]:
    images = [sample.pixels for sample in samples]
    if get_worker_info() is None:
        # Torch would share this small copy among threads, which on a busy machine took 70 ms to wait for each other.
        pixels = torch.from_numpy(np.stack([image.numpy() for image in images]))
    else:
        pixels = default_collate(images)  # straight into the memory shared with the main process
    return pixels, torch.tensor([sample.image for sample in samples]), [sample.failures for sample in samples]


def load(
    maker: Maker,
    numbers: Iterable[list[int]],
    *,
    workers: int = 0,
    prefetch: int = 4,
    pin_memory: bool = False,
    start_method: str | None = None,
) -> Iterator[tuple[Tensor, Tensor, list[list[tuple[int, str]]]]]:
    """Lists of sample numbers -> (pixels (B,C,H,W), indices (B,), failures of each sample), in the same order.

    Args:
        maker: makes one sample.
        numbers: one list for each batch; may be endless.
        workers: processes; 0 makes the samples in this one.
        prefetch: batches that each worker has ready.
        pin_memory: put the batches where a GPU can fetch them while it computes.
        start_method: of the workers: `fork`, `spawn` or `forkserver`; None for the platform's own.

    Raises:
        ValueError: `workers` is negative, or `prefetch` below 1.
    """
    if workers < 0 or prefetch < 1:
        raise ValueError(f"workers is {workers} and prefetch is {prefetch}; they must be >= 0 and >= 1")
    loader: DataLoader[Made] = DataLoader(
        _Samples(maker),
        batch_sampler=numbers,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        prefetch_factor=prefetch if workers else None,
        multiprocessing_context=start_method if workers else None,
        # Torch draws a base seed for its workers; from the global generator it would change the run.
        generator=torch.Generator(),
    )
    return iter(loader)
