# SPDX-License-Identifier: Apache-2.0
"""Damaged `.lat` payloads -> how many are refused, and by which error: mutation fuzzing of `decompress_latents`.

    python -m benchmarks.fuzz [--minutes 10] [--seed 0]

The golden files of tests/golden are damaged as bytes, or field by field with the checksums repaired, so that what lies
behind them is reached. Whatever comes out must be latents or a `BitstreamError`, within a bound of time and of memory.
A payload that does something else is written to a file, and the run ends with status 1.
"""

import argparse
import faulthandler
import sys
import time
import tracemalloc
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from latentwire_codec.lat.payload import decompress_latents
from latentwire_core.container import MAGIC, SECTION_NAMES, VERSION, unpack
from latentwire_core.errors import BitstreamError

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
MAX_VALUES = 1 << 16
"""Latents that a payload may announce: few, so that there are many tries."""
MOST_SECONDS = 20.0
MOST_MIB = 64
BATCH = 50
HANG_SECONDS = 300
"""For a batch of tries."""
NUMBERS = (0, 1, 2, 3, 7, 8, 9, 63, 127, 128, 255, 256, 1023, 1024, 1025, 65535, 65536, 1 << 24, (1 << 32) - 1, 1 << 35)
"""Near the limits of the format."""
RAW_SHARE = 0.2
"""Of tries without repaired checksums."""


class Failure(Exception):
    """A payload that gave neither latents nor a `BitstreamError`, or took too much.

    Args:
        problem: what happened.
        payload: the bytes.
    """

    def __init__(self, problem: str, payload: bytes) -> None:
        super().__init__(problem)
        self.payload = payload


@dataclass
class Parts:
    """A payload field by field."""

    fields: dict[str, bytes]
    sections: list[bytes]

    @classmethod
    def of(cls, payload: bytes) -> "Parts":
        """Take a payload apart that is as it was written."""
        header, sections = unpack(payload)
        steps = header.numerators[:1] if len(set(header.numerators)) == 1 else header.numerators
        fields = {
            "magic": MAGIC + bytes([VERSION]),
            "kind": bytes([header.kind]),
            "model": _named(header.model),
            "space": _named(header.latent_space),
            "digest": bytes.fromhex(header.weights_digest or "00" * 8),
            "image": b"".join(map(_varint, header.image_size)),
            "shape": b"".join(map(_varint, header.shape)),
            "table": header.table_id.to_bytes(4, "little"),
            "exponent": header.exponent.to_bytes(1, "little", signed=True),
            "steps": _varint(len(steps)) + b"".join(step.to_bytes(2, "little") for step in steps),
            "pull": bytes([header.reconstruction_offset]),
        }
        return cls(fields, [getattr(sections, name) for name in SECTION_NAMES])

    def payload(self, lengths: bytes | None = None) -> bytes:
        """Put the parts together, with checksums that are right; lengths: instead of those of the sections."""
        announced = b"".join(_varint(len(section)) for section in self.sections) if lengths is None else lengths
        parts = [b"".join(self.fields.values()) + announced, *filter(None, self.sections)]
        return b"".join(part + zlib.crc32(part).to_bytes(4, "little") for part in parts)


@dataclass
class Report:
    """What came of all tries."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")
    """Seconds, and the outcome."""
    largest: tuple[float, str] = (0.0, "")
    """MiB, and the outcome."""


class Mutator:
    """Damages payloads, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.corpus = [path.read_bytes() for path in sorted(GOLDEN.glob("*.lat"))]

    def payload(self) -> bytes:
        """Return the next damaged payload."""
        original = self.random.choice(self.corpus)
        if self.random.random() < RAW_SHARE:
            return self.damaged(original, self.random.choice(self.corpus))
        parts, other = Parts.of(original), Parts.of(self.random.choice(self.corpus))
        lengths = None
        for _ in range(self.random.choice((1, 1, 2, 4))):
            place = self.random.randrange(len(SECTION_NAMES))
            match self.random.randrange(8):
                case 0:
                    parts.fields["shape"] = b"".join(map(_varint, self.shape()))
                case 1:
                    parts.fields["steps"] = self.steps()
                case 2:
                    name = self.random.choice(sorted(parts.fields))
                    parts.fields[name] = self.damaged(parts.fields[name], other.fields[name])
                case 3:
                    name = self.random.choice(("kind", "exponent", "pull"))
                    parts.fields[name] = bytes([self.random.choice((1, 2, self.random.randrange(256)))])
                case 4:
                    lengths = b"".join(_varint(self.random.choice(NUMBERS)) for _ in SECTION_NAMES)
                case 5:
                    parts.sections[place] = self.random.randbytes(self.random.randrange(200))
                case _:
                    parts.sections[place] = self.damaged(parts.sections[place], other.sections[place])
        return parts.payload(lengths)

    def shape(self) -> list[int]:
        """Return channels, rows and columns: at times near the limits, mostly few enough to be decoded."""
        if self.random.random() < 0.3:
            return [self.random.choice(NUMBERS) for _ in range(3)]
        return [self.random.choice((1, 2, 4, 32)), self.random.randint(1, 40), self.random.randint(1, 40)]

    def steps(self) -> bytes:
        """Return their number and numerators, which need not fit each other."""
        numerators = [self.random.choice((0, 1, 1 << self.random.randrange(16), 65535)) for _ in range(4)]
        count = self.random.choice((0, 1, 4, *NUMBERS))
        return _varint(count) + b"".join(number.to_bytes(2, "little") for number in numerators[: min(count, 4)])

    def damaged(self, data: bytes, other: bytes) -> bytes:
        """Change some bytes: bits, values, insertions, deletions, the rest, or from another payload."""
        changed = bytearray(data)
        for _ in range(self.random.choice((1, 1, 2, 8))):
            at = self.random.randint(0, len(changed))
            match self.random.randrange(7):
                case 0 if at < len(changed):
                    changed[at] ^= 1 << self.random.randrange(8)
                case 1 if at < len(changed):
                    changed[at] = self.random.choice((0, 127, 128, 255))
                case 2:
                    changed[at:at] = self.random.randbytes(self.random.randint(1, 8))
                case 3:
                    del changed[at : at + self.random.randint(1, 8)]
                case 4:
                    del changed[at:]
                case 5:
                    changed[at:] = other[self.random.randint(0, len(other)) :]
                case _:
                    count = self.random.randint(1, 16)
                    changed[at : at + count] = bytes([self.random.choice((0, 128, 255))]) * count
        return bytes(changed)


def attempt(payload: bytes) -> str:
    """Decode a payload and name the outcome.

    Raises:
        Failure: it is none that is allowed.
    """
    try:
        latents, header = decompress_latents(payload, max_values=MAX_VALUES)
    except BitstreamError as error:
        return type(error).__name__
    except Exception as error:
        raise Failure(f"{type(error).__name__}: {error}", payload) from error
    if latents.shape != header.shape or not np.isfinite(latents).all():
        raise Failure("the latents are not finite, or not of the header's shape", payload)
    return "latents"


def fuzz(mutator: Mutator, tries: int, report: Report, most_seconds: float = MOST_SECONDS) -> None:
    """Try damaged payloads and add what came of them to the report.

    Raises:
        Failure: at the first that does what none may do.
    """
    tracemalloc.start()
    try:
        for _ in range(tries):
            payload = mutator.payload()
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            started = time.perf_counter()
            outcome = attempt(payload)
            seconds = time.perf_counter() - started
            mib = (tracemalloc.get_traced_memory()[1] - before) / 2**20
            if seconds > most_seconds or mib > MOST_MIB:
                raise Failure(f"{outcome} after {seconds:.1f} s with {mib:.0f} MiB", payload)
            report.outcomes[outcome] += 1
            report.slowest = max(report.slowest, (seconds, outcome))
            report.largest = max(report.largest, (mib, outcome))
    finally:
        tracemalloc.stop()


def main() -> None:
    """Fuzz for some minutes, print the counts, and keep a payload that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (default 0)")
    arguments = parser.parse_args()
    console = Console()
    mutator, report = Mutator(arguments.seed), Report()
    started = time.monotonic()
    try:
        with Progress(console=console) as progress:
            task = progress.add_task("fuzzing", total=60 * arguments.minutes)
            while not progress.finished:
                # A decoder that hangs is ended, with its traceback.
                faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
                fuzz(mutator, BATCH, report)
                progress.update(task, completed=time.monotonic() - started)
    except Failure as failure:
        path = Path("fuzz-failure.lat")
        path.write_bytes(failure.payload)
        console.print_exception()
        sys.exit(f"after {report.outcomes.total()} payloads: {failure}; the payload is in {path}")
    finally:
        faulthandler.cancel_dump_traceback_later()
    table = Table(title=f"{report.outcomes.total()} damaged payloads, seed {arguments.seed}: all refused or decoded")
    table.add_column("outcome")
    table.add_column("payloads", justify="right")
    for outcome, count in report.outcomes.most_common():
        table.add_row(outcome, str(count))
    console.print(table)
    console.print(f"slowest: {report.slowest[0] * 1e3:.0f} ms ({report.slowest[1]})", highlight=False)
    console.print(f"largest: {report.largest[0]:.1f} MiB ({report.largest[1]})", highlight=False)


def _named(name: str) -> bytes:
    return bytes([len(name.encode())]) + name.encode()


def _varint(number: int) -> bytes:
    groups = [number >> shift & 127 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


if __name__ == "__main__":
    main()
