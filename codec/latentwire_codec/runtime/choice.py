# SPDX-License-Identifier: Apache-2.0
"""The ways in which a network can run on this CPU -> the fastest one that is exact enough, measured once and kept.

A choice is kept in the user's cache, by processor, versions, threads and weights. One process at a time measures: the
workers of a server wait for the first one's choice.
"""

import hashlib
import json
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median

import numba
import torch
from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from torch import Tensor

from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.placement import Placement
from latentwire_codec.runtime.probe import leaves

log = logging.getLogger("latentwire")

LEAST_DB = 50.0
"""The least PSNR to float32 of a way that may be chosen: an 8-bit image then differs in few places, by one step."""
SIDE = 96
ROUNDS, LIMIT_S = 5, 2.0
HOPELESS = 1.6
"""A way whose first run takes this many times the fastest one's is not timed again."""
WAIT_S = 60.0


@dataclass(frozen=True)
class Way:
    """A way to run a network on a CPU.

    Attributes:
        dtype: what it computes in.
        rewrites: whether it computes with less arithmetic; without, the class's own modules run.
    """

    dtype: str
    rewrites: bool

    def __str__(self) -> str:
        """Return its name in the log."""
        return self.dtype + ("" if self.rewrites else ", no rewrites")


REFERENCE = Way("float32", rewrites=True)
WAYS: Sequence[Way] = (
    REFERENCE,
    Way("float32", rewrites=False),
    Way("bfloat16", rewrites=True),
    Way("bfloat16", rewrites=False),
)


@dataclass(frozen=True)
class Measured:
    """What was measured of a way: seconds to encode and decode a small image, and the PSNR to float32, of the worse."""

    way: Way
    seconds: float
    psnr_db: float


def choose(source: str, digest: str, build: Callable[[Way], Autoencoder], rewrites: bool) -> Autoencoder:
    """Return the autoencoder of the fastest way whose results are within LEAST_DB of float32.

    Args:
        source: the name of the model in the log.
        digest: the digest of its weights.
        build: maps a way to the autoencoder that runs so.
        rewrites: whether the ways with rewrites are offered.
    """
    ways = [way for way in WAYS if way.rewrites <= rewrites and not _is_emulated(way)]
    if len(ways) == 1:
        return build(ways[0])
    path = _path(digest, ways)
    if (way := _kept(path, ways)) is not None:
        return build(way)
    with suppress(OSError):  # measured by each process, where nothing can be kept
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout), FileLock(path.with_suffix(".lock"), timeout=WAIT_S):
            if (way := _kept(path, ways)) is not None:
                return build(way)
            return _measure_and_keep(source, path, build, ways)
    return _measure_and_keep(source, path, build, ways)


def measure(built: Mapping[Way, Autoencoder]) -> list[Measured]:
    """Measure ways in turn on a small image; those whose results are not finite, or too far from float32, are left out.

    The first way is the reference.
    """
    images = leaves(1, SIDE)
    references: tuple[Tensor, Tensor] | None = None
    exact: dict[Way, float] = {}
    seconds: dict[Way, list[float]] = {}
    for way, autoencoder in built.items():
        started = time.perf_counter()
        encoded = autoencoder.encode(images).mode()
        decoded = autoencoder.decode(encoded if references is None else references[0]).clamp(-1, 1)
        seconds[way] = [time.perf_counter() - started]
        references = references or (encoded, decoded)
        exact[way] = min(_psnr(encoded, references[0], _span(references[0])), _psnr(decoded, references[1], 2.0))
    assert references is not None  # there is at least one way
    fit = [way for way in built if exact[way] >= LEAST_DB]
    limit = HOPELESS * min(seconds[way][0] for way in fit)
    begun = time.monotonic()
    for _ in range(ROUNDS):
        for way in fit:
            if seconds[way][0] <= limit:
                started = time.perf_counter()
                built[way].encode(images)
                built[way].decode(references[0])
                seconds[way].append(time.perf_counter() - started)
        if time.monotonic() - begun > LIMIT_S:
            break
    return [Measured(way, median(seconds[way]) if way in fit else math.inf, exact[way]) for way in built]


def _psnr(one: Tensor, other: Tensor, span: float) -> float:
    """Return the PSNR in dB, where the values have this range; -inf where one is not finite."""
    error = float((one.double() - other.double()).square().mean())
    if not math.isfinite(error):
        return -math.inf
    return math.inf if error == 0 else 10 * math.log10(span * span / error)


def _span(values: Tensor) -> float:
    return float(values.max() - values.min())


def _measure_and_keep(source: str, path: Path, build: Callable[[Way], Autoencoder], ways: Iterable[Way]) -> Autoencoder:
    started = time.monotonic()
    built = {way: build(way) for way in ways}
    found = measure(built)
    best = min(found, key=lambda each: each.seconds)
    log.info(
        "%s: %s is chosen of %s; measured in %.1f s",
        source, best.way, "; ".join(map(_described, found)), time.monotonic() - started,
    )  # fmt: skip
    _remembered[path] = best.way
    with suppress(OSError):
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(asdict(best.way)), encoding="utf-8")
        partial.replace(path)
    return built[best.way]


def _described(each: Measured) -> str:
    speed = "not timed" if math.isinf(each.seconds) else f"{1000 * each.seconds:.0f} ms"
    return f"{each.way}: {speed}, {each.psnr_db:.1f} dB"


# A choice holds for the life of the process, also where it cannot be kept.
_remembered: dict[Path, Way] = {}


def _kept(path: Path, ways: Sequence[Way]) -> Way | None:
    way = _remembered.get(path)
    if way is None:
        with suppress(OSError, ValueError, TypeError):
            way = Way(**json.loads(path.read_text(encoding="utf-8")))
    return way if way in ways else None


def _path(digest: str, ways: Iterable[Way]) -> Path:
    facts = [_processor(), torch.__version__, numba.__version__, torch.get_num_threads(), digest, *map(str, ways)]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    return user_cache_path("latentwire") / "ways" / f"{name}.json"


@cache
def _processor() -> str:
    """Return the model of the processor and its instructions."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(dict.fromkeys(line for line in lines if line.startswith(("model", "flags", "Features"))))
    return f"{platform.machine()} {platform.processor()}"


def _is_emulated(way: Way) -> bool:
    return Placement.choose("cpu", way.dtype).is_emulated
