# SPDX-License-Identifier: Apache-2.0
"""Damaged image files -> pixels or an `ImageError`: structure-aware mutation fuzzing of the reader.

    python -m tests.fuzz.images [--minutes 10] [--seed 0] [--replay FILE]

Sound files of every format are taken apart, some parts are changed, and the rest is made to fit again: lengths,
checksums, directories. Others are damaged as bytes. The outcome must be pixels or an `ImageError`, within bounds of CPU
time and memory, and no process may crash. The bounds grow with the megapixels that a file's header announces, where
`open_image` accepts the header. A file whose header is refused has a size of 0, so that it must be refused at once.
"""

from pathlib import Path
from random import Random
from typing import Literal, Self

import numpy as np

import latentwire_codec
import latentwire_core
from latentwire_codec.images.files import open_image
from latentwire_core.errors import ImageError
from tests.fuzz.apart import Apart
from tests.fuzz.damage import damaged
from tests.fuzz.image_files import corpus
from tests.fuzz.image_parts import LAYOUTS, Layout, Part
from tests.fuzz.runner import Attempt, run

LEAST_SECONDS, SECONDS_A_MEGAPIXEL = 0.25, 2.0
"""CPU time for a file of any size, and for each megapixel."""
LEAST_MIB, MIB_A_MEGAPIXEL = 64, 40
"""Memory likewise: a megapixel as RGBA has 4 MiB, and decoders and conversions of colour keep several."""
NUMBERS = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 64, 127, 128, 255, 256, 257, 1000, 1024, 4095, 4096)
LARGE = (8191, 8192, 8193, 16383, 16384, 32767, 32768, 65535, 65536, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
"""Numbers that sides, counts and places are replaced by."""
RAW_SHARE = 0.15
"""Share of the files that are damaged as bytes."""
MOST_BYTES = 4 << 20


def field(random: Random, parts: list[Part], layout: Layout, other: list[Part]) -> None:
    """Replace a number that the format defines."""
    known = [entry for entry in layout.fields if any(part.kind == entry[0] for part in parts)]
    if known:
        kind, at, size, order = random.choice(known)
        part = random.choice([part for part in parts if part.kind == kind])
        part.body = _replaced(random, part.body, at, size, "little" if order == "<" else "big")


def number(random: Random, parts: list[Part], layout: Layout, other: list[Part]) -> None:
    """Replace bytes at any place of a part by a number."""
    part = random.choice(parts)
    at, size = random.randint(0, len(part.body)), random.choice((1, 2, 4))
    part.body = _replaced(random, part.body, at, size, random.choice(("little", "big")))


def bytes_of_a_part(random: Random, parts: list[Part], layout: Layout, other: list[Part]) -> None:
    """Damage the bytes of one part."""
    part = random.choice(parts)
    part.body = damaged(random, part.body, random.choice(other).body)


def repeat(random: Random, parts: list[Part], layout: Layout, other: list[Part]) -> None:
    """Put copies of a part behind it, mostly few."""
    at = random.randrange(len(parts))
    count = random.choice((1, 1, 2, 5, 100, 100, 5000))
    parts[at:at] = [parts[at]] * min(count, MOST_BYTES // (len(parts[at].body) + 16))


def move(random: Random, parts: list[Part], layout: Layout, other: list[Part]) -> None:
    """Move a part to another place."""
    part = parts.pop(random.randrange(len(parts)))
    parts.insert(random.randint(0, len(parts)), part)


def leave_out(random: Random, parts: list[Part], layout: Layout, other: list[Part]) -> None:
    """Leave a part out, if there is another."""
    if len(parts) > 1:
        del parts[random.randrange(len(parts))]


def cut(random: Random, parts: list[Part], layout: Layout, other: list[Part]) -> None:
    """Keep the beginning of a part."""
    part = random.choice(parts)
    part.body = part.body[: random.randint(0, len(part.body))]


def enlarge(random: Random, parts: list[Part], layout: Layout, other: list[Part]) -> None:
    """Repeat the bytes of a part, as for a table with more entries."""
    part = random.choice(parts)
    count = random.choice((2, 2, 10, 1000))
    part.body *= min(count, MOST_BYTES // (len(part.body) + 1) + 1)


def exchange(random: Random, parts: list[Part], layout: Layout, other: list[Part]) -> None:
    """Put a part of another file in."""
    parts.insert(random.randint(0, len(parts)), random.choice(other))


def announce(random: Random, parts: list[Part], layout: Layout, other: list[Part]) -> None:
    """Announce another length or number of values."""
    part = random.choice(parts)
    near = len(part.body) + random.choice((-1, 1, 2))
    part.announced = max(0, random.choice((near, random.choice(NUMBERS), random.choice(LARGE))))


def unsound(random: Random, parts: list[Part], layout: Layout, other: list[Part]) -> None:
    """Make a checksum wrong."""
    random.choice(parts).sound = False


MUTATORS = {
    field: 6,
    number: 4,
    bytes_of_a_part: 4,
    repeat: 2,
    move: 1,
    leave_out: 1,
    cut: 1,
    enlarge: 1,
    exchange: 2,
    announce: 1,
    unsound: 0.3,
}
"""Mutators, and how often each is chosen beside the others."""


def _replaced(random: Random, body: bytes, at: int, size: int, order: Literal["little", "big"]) -> bytes:
    """Replace `size` bytes by a number, which is near their own, usual, or rarely large."""
    own = int.from_bytes(body[at : at + size], order)
    near = random.choice((own - 1, own + 1, own * 2))
    value = random.choice((near, random.choice(NUMBERS), random.choice(NUMBERS), random.choice(LARGE)))
    return body[:at] + (value % (1 << 8 * size)).to_bytes(size, order) + body[at + size :]


class Images:
    """`open_image` and `read` with damaged files.

    Args:
        seed: of the damage.
        timed: whether CPU time is bounded.
    """

    name = "images"

    def __init__(self, seed: int, *, timed: bool = True) -> None:
        self.random = Random(seed)
        self._bounded = float(timed)
        self._apart = Apart(read, warm_up=corpus()["PNG"][0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._apart.close()

    def payload(self) -> bytes:
        """Return the next damaged file."""
        random = self.random
        name = random.choice(list(LAYOUTS))
        layout, files = LAYOUTS[name], corpus()[name]
        original, other = random.choices(files, k=2)
        if random.random() < RAW_SHARE:
            return damaged(random, layout.join(layout.split(original), original), other)
        return self._changed(layout, original, other)[: 2 * MOST_BYTES]

    def _changed(self, layout: Layout, original: bytes, other: bytes) -> bytes:
        """Change parts of a file, or, in a container, parts of a part."""
        parts, others = layout.split(original), layout.split(other)
        random = self.random
        inner = [part for part in parts if part.kind in layout.containers]
        if inner and random.random() < 0.8:
            part = random.choice(inner)
            match = next((each for each in others if each.kind == part.kind), part)
            head = layout.containers[part.kind]
            part.body = part.body[:head] + self._changed(_inside(layout), part.body[head:], match.body[head:])
        else:
            for mutate in random.choices(list(MUTATORS), list(MUTATORS.values()), k=random.choice((1, 1, 2, 3))):
                if parts and others:
                    mutate(random, parts, layout, others)
        return layout.join(parts, original)

    def attempt(self, payload: bytes) -> Attempt:
        """Read a file; raise Failure where the outcome is neither pixels nor an honest `ImageError`."""
        return self._apart.attempt(payload, self._bounds)

    def _bounds(self, megapixels: float) -> tuple[float, float]:
        seconds = (LEAST_SECONDS + SECONDS_A_MEGAPIXEL * megapixels) if self._bounded else float("inf")
        return seconds, LEAST_MIB + MIB_A_MEGAPIXEL * megapixels


def read(payload: bytes) -> tuple[str, float]:
    """Read a file and return the name of the outcome, and its megapixels; 0 where the header is refused."""
    megapixels, stage = 0.0, "header refused"
    try:
        opened = open_image(payload)
        megapixels, stage = opened.size[0] * opened.size[1] / 1e6, "pixels refused"
        pixels = opened.read()
    except ImageError as error:
        _check(error)
        return stage, megapixels
    assert pixels.dtype == np.uint8
    assert pixels.shape in {(*opened.size, 3), (*opened.size[::-1], 3)}
    assert pixels.flags.c_contiguous
    assert pixels.flags.owndata
    return "pixels", megapixels


def _check(error: ImageError) -> None:
    """Let a decoder's own errors pass; raise the cause that is a fault of the reader, or a lack of memory."""
    cause = error.__cause__
    if cause is None or isinstance(cause, ImageError):
        return
    trace = cause.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    source = Path(trace.tb_frame.f_code.co_filename) if trace is not None else Path()
    if isinstance(cause, MemoryError | SystemError) or any(map(source.is_relative_to, _PACKAGES)):
        raise cause


_PACKAGES = tuple(Path(package.__path__[0]) for package in (latentwire_codec, latentwire_core))


def _inside(layout: Layout) -> Layout:
    """Return the layout of the parts of a part, which have no head."""
    if b"ANMF" not in layout.containers:
        return layout
    return Layout(
        lambda body: layout.split(bytes(12) + body),
        lambda parts, _: layout.join(parts, b"")[12:],
        layout.fields,
        {},
    )


if __name__ == "__main__":
    run(Images, __doc__)
