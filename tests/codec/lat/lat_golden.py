# SPDX-License-Identifier: Apache-2.0
"""Seeded latents -> the golden `.lat` files in tests/golden, which every release must decode to the same numbers.

    python -m tests.codec.lat.lat_golden

writes them again, and prints the digests that tests/codec/test_golden.py freezes. That is done when the version of the
format changes, and at no other time.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from latentwire_codec.lat import coder
from latentwire_codec.lat.payload import Latents, Provenance, compress_latents, decompress_latents
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import common_tables
from latentwire_core import container
from latentwire_core.container import Header, Sections

FOLDER = Path(__file__).parents[2] / "golden"
Shape = tuple[int, int, int]
Random = np.random.Generator
UNKNOWN = Provenance()


@dataclass(frozen=True)
class Case:
    """What a golden file holds."""

    make: Callable[[Random], Latents]
    quality: str | float = "cache"
    units: tuple[float, ...] | None = None
    provenance: Provenance = UNKNOWN


def normal(*shape: int) -> Callable[[Random], Latents]:
    return lambda random: random.normal(size=shape).astype(np.float32)


def smooth(*shape: int) -> Callable[[Random], Latents]:
    """Neighbours and channels that resemble each other, as those of a photograph do."""

    def make(random: Random) -> Latents:
        channels, height, width = shape
        plane = random.normal(size=(channels, height + 8, width + 8)).cumsum(axis=1).cumsum(axis=2)
        plane -= sum(np.roll(plane, distance, axis) for axis in (1, 2) for distance in (-3, 3)) / 4
        plane += 0.5 * np.roll(plane, 1, axis=0)
        latents: Latents = (plane[:, 4:-4, 4:-4] / plane.std()).astype(np.float32)
        return latents

    return make


def outliers(random: Random) -> Latents:
    latents = random.normal(size=(3, 11, 12))
    latents[random.random(latents.shape) < 0.03] *= 5000
    return latents.astype(np.float32)


def constants(random: Random) -> Latents:
    latents = np.zeros((4, 9, 8), np.float32)
    latents[1:3] = np.array([[[3.25]], [[-100.0]]])
    latents[3] = random.normal(size=(9, 8))
    return latents


def half(*shape: int) -> Callable[[Random], Latents]:
    return lambda random: random.normal(size=shape).astype(np.float16)


def half_extremes(random: Random) -> Latents:
    """Bit patterns at random, and those at the borders: zeros, subnormals, the largest."""
    bits = random.integers(0, 1 << 16, (3, 8, 9)).astype(np.uint16)
    bits[(bits & 0x7C00) == 0x7C00] &= 0x83FF
    bits[0, 0] = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00]
    bits[1] &= 0x83FF
    return bits.view(np.float16)


def half_constants(random: Random) -> Latents:
    return np.broadcast_to(np.array([-0.0, 1.0, 65504.0], np.float16)[:, None, None], (3, 5, 6)).copy()


PHOTOGRAPH = Provenance("f8c4", "latentwire-f8c4@3", "00112233445566778899aabbccddeeff", (101, 70))
LONG_NAMES = Provenance("m" * 255, "ä" * 127 + "x", "ff" * 32, (1, 2**32 - 1))
CASES = {
    "one-place": Case(normal(1, 1, 1)),
    "row": Case(normal(1, 1, 37)),
    "column": Case(normal(2, 29, 1), "high"),
    "odd-sides": Case(smooth(4, 13, 9), provenance=PHOTOGRAPH),
    "own-weights": Case(smooth(2, 33, 32), "medium"),
    "smooth": Case(smooth(4, 32, 32), "cache", (1.0, 0.5, 0.75, 0.3), PHOTOGRAPH),
    "coarse": Case(smooth(4, 24, 20), "low"),
    "16-channels": Case(smooth(16, 6, 5), "high"),
    "32-channels": Case(smooth(32, 8, 8), "medium"),
    "vector": Case(normal(96, 1, 1)),
    "constants": Case(constants),
    "outliers": Case(outliers),
    "low-bits": Case(normal(2, 9, 7), 1e-4),
    "most-low-bits": Case(lambda random: random.uniform(-1, 1, (3, 6, 7)), 2.0**-22, (1.0,) * 3),
    "long-names": Case(normal(1, 2, 2), provenance=LONG_NAMES),
    "half": Case(half(4, 9, 9), "lossless", provenance=PHOTOGRAPH),
    "half-extremes": Case(half_extremes, "lossless"),
    "half-constants": Case(half_constants, "lossless"),
}


def payload(name: str) -> bytes:
    """What this machine's encoder makes of a case: its floating-point choices may differ from another machine's."""
    case = CASES[name]
    latents = case.make(np.random.default_rng(list(CASES).index(name)))
    return compress_latents(latents, case.quality, units=case.units, provenance=case.provenance)


def read(name: str) -> bytes:
    return (FOLDER / f"{name}.lat").read_bytes()


def integers(data: bytes) -> tuple[Header, Sections, SideInformation, npt.NDArray[np.int64]]:
    """A payload as far as the integers in it."""
    header, sections = container.unpack(data)
    side_information = SideInformation.from_bytes(sections.weights, header.shape[0])
    coded = coder.Coded(sections.symbols, sections.escapes, sections.low_bits)
    return (
        header,
        sections,
        side_information,
        coder.decode(coded, header.shape, common_tables().context_model(side_information))[0],
    )


def digest(arrays: list[npt.NDArray[Any]]) -> str:
    """SHA-256 over the shapes and values of arrays, little-endian."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(repr((array.shape, array.dtype.str[1:])).encode())
        found.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return found.hexdigest()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in CASES:
        (FOLDER / f"{name}.lat").write_bytes(payload(name))
        header, sections, _, _ = integers(read(name))
        print(
            f"{name:15} {len(read(name)):5} bytes {header.shape!s:12}", {k: len(v) for k, v in vars(sections).items()}
        )
    print("INTEGERS =", digest([integers(read(name))[3] for name in CASES]))
    print("LATENTS =", digest([decompress_latents(read(name))[0] for name in CASES]))
    print("FILES =", hashlib.sha256(b"".join(read(name) for name in CASES)).hexdigest())


if __name__ == "__main__":
    main()
