# SPDX-License-Identifier: Apache-2.0
"""Damaged `.lat` payloads -> latents or a `BitstreamError`: mutation fuzzing of `decompress_latents`.

    python -m tests.fuzz.lat [--minutes 10] [--seed 0] [--replay FILE]

Golden payloads are damaged as bytes, or field by field with right checksums, so that the damage reaches the code behind
the checksums. The outcome must be latents or a `BitstreamError`, within bounds of CPU time and memory.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Self

import numpy as np

from latentwire_codec.lat.payload import decompress_latents, warm_up
from latentwire_core.container import MAGIC, SECTION_NAMES, VERSION, unpack
from latentwire_core.errors import BitstreamError
from latentwire_core.varints import to_varint
from tests.fuzz.apart import Apart
from tests.fuzz.damage import damaged
from tests.fuzz.runner import Attempt, run

GOLDEN = Path(__file__).parents[1] / "golden"
MAX_VALUES = 1 << 16
"""Latents that a payload may announce: few, so that a minute has many tries."""
NUMBERS = (0, 1, 2, 3, 7, 8, 9, 63, 127, 128, 255, 256, 1023, 1024, 1025, 65535, 65536, 1 << 24, (1 << 32) - 1, 1 << 35)
"""Numbers near the limits of the format."""
MOST_SECONDS = 5.0
"""CPU time that a payload may take."""
MOST_MIB = 64
RAW_SHARE = 0.2
"""Share of the payloads whose checksums are not repaired."""


@dataclass
class Parts:
    """A payload field by field."""

    fields: dict[str, bytes]
    sections: list[bytes]
    lengths: bytes | None = None
    """Announced lengths of the sections; None: the right ones."""

    @classmethod
    def of(cls, payload: bytes) -> "Parts":
        """Take an undamaged payload apart."""
        header, sections = unpack(payload)
        steps = header.numerators[:1] if len(set(header.numerators)) == 1 else header.numerators
        fields = {
            "magic": MAGIC + bytes([VERSION]),
            "kind": bytes([header.kind]),
            "model": _named(header.model),
            "space": _named(header.latent_space),
            "digest": bytes.fromhex(header.weights_digest or "00" * 8),
            "image": b"".join(map(to_varint, header.image_size)),
            "shape": b"".join(map(to_varint, header.shape)),
            "table": header.table_id.to_bytes(4, "little"),
            "exponent": header.exponent.to_bytes(1, "little", signed=True),
            "steps": to_varint(len(steps)) + b"".join(step.to_bytes(2, "little") for step in steps),
            "reconstruction_offset": bytes([header.reconstruction_offset]),
        }
        return cls(fields, [getattr(sections, name) for name in SECTION_NAMES])

    def payload(self) -> bytes:
        """Put the parts together with right checksums."""
        announced = b"".join(to_varint(len(section)) for section in self.sections)
        parts = [b"".join(self.fields.values()) + (announced if self.lengths is None else self.lengths)]
        parts += filter(None, self.sections)
        return b"".join(part + zlib.crc32(part).to_bytes(4, "little") for part in parts)


PartsMutator = Callable[[Random, Parts, Parts], None]
"""Changes one field or section in place; the last argument is another payload to copy from."""


def near_shape(random: Random, parts: Parts, other: Parts) -> None:
    """Announce channels, rows and columns: at times near the limits, mostly few enough to be decoded."""
    shape = [random.choice((1, 2, 4, 32)), random.randint(1, 40), random.randint(1, 40)]
    if random.random() < 0.3:
        shape = [random.choice(NUMBERS) for _ in range(3)]
    parts.fields["shape"] = b"".join(map(to_varint, shape))


def other_steps(random: Random, parts: Parts, other: Parts) -> None:
    """Announce a number of steps and some numerators, which need not fit each other."""
    numerators = [random.choice((0, 1, 1 << random.randrange(16), 65535)) for _ in range(4)]
    count = random.choice((0, 1, 4, *NUMBERS))
    kept = numerators[: min(count, 4)]
    parts.fields["steps"] = to_varint(count) + b"".join(number.to_bytes(2, "little") for number in kept)


def damaged_field(random: Random, parts: Parts, other: Parts) -> None:
    """Damage the bytes of one field."""
    name = random.choice(sorted(parts.fields))
    parts.fields[name] = damaged(random, parts.fields[name], other.fields[name])


def other_byte(random: Random, parts: Parts, other: Parts) -> None:
    """Replace a field of one byte."""
    parts.fields[random.choice(("kind", "exponent", "reconstruction_offset"))] = bytes(
        [random.choice((1, 2, random.randrange(256)))]
    )


def other_lengths(random: Random, parts: Parts, other: Parts) -> None:
    """Announce other lengths of the sections."""
    parts.lengths = b"".join(to_varint(random.choice(NUMBERS)) for _ in SECTION_NAMES)


def random_section(random: Random, parts: Parts, other: Parts) -> None:
    """Replace a section with random bytes."""
    parts.sections[random.randrange(len(SECTION_NAMES))] = random.randbytes(random.randrange(200))


def damaged_section(random: Random, parts: Parts, other: Parts) -> None:
    """Damage the bytes of one section."""
    place = random.randrange(len(SECTION_NAMES))
    parts.sections[place] = damaged(random, parts.sections[place], other.sections[place])


MUTATORS: dict[PartsMutator, int] = {
    near_shape: 1,
    other_steps: 1,
    damaged_field: 1,
    other_byte: 1,
    other_lengths: 1,
    random_section: 1,
    damaged_section: 2,
}
"""Mutators, and how often each is chosen beside the others."""


class Lat:
    """`decompress_latents` with damaged golden payloads."""

    name = "lat"

    def __init__(self, seed: int, most_seconds: float = MOST_SECONDS) -> None:
        self.random = Random(seed)
        self.corpus = [path.read_bytes() for path in sorted(GOLDEN.glob("*.lat"))]
        # The bounds of time are those of decoding: compilation is no part of it.
        warm_up()
        self._most_seconds = most_seconds
        self._apart = Apart(decode, warm_up=self.corpus[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._apart.close()

    def payload(self) -> bytes:
        """Return the next damaged payload."""
        original, other = self.random.choices(self.corpus, k=2)
        if self.random.random() < RAW_SHARE:
            return damaged(self.random, original, other)
        parts, others = Parts.of(original), Parts.of(other)
        count = self.random.choice((1, 1, 2, 4))
        for mutate in self.random.choices(list(MUTATORS), weights=list(MUTATORS.values()), k=count):
            mutate(self.random, parts, others)
        return parts.payload()

    def attempt(self, payload: bytes) -> Attempt:
        """Decode a payload; raise Failure where the outcome is neither latents nor a `BitstreamError`."""
        return self._apart.attempt(payload, lambda _: (self._most_seconds, MOST_MIB))


def decode(payload: bytes) -> tuple[str, float]:
    """Decode a payload and return the name of the outcome, and the number of latents."""
    try:
        latents, header = decompress_latents(payload, max_values=MAX_VALUES)
    except BitstreamError as error:
        return type(error).__name__, 0.0
    assert latents.shape == header.shape
    assert np.isfinite(latents).all()
    return "latents", float(latents.size)


def _named(name: str) -> bytes:
    return bytes([len(name.encode())]) + name.encode()


if __name__ == "__main__":
    run(Lat, __doc__)
