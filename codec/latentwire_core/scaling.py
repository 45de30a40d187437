# SPDX-License-Identifier: Apache-2.0
"""A diffusers configuration -> the factors of its latents: scaled = (raw - shift) * scale."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scaling:
    """Scale and shift of latents, each one number or one per channel: scaled = (raw - shift) * scale."""

    scale: tuple[float, ...]
    shift: tuple[float, ...] = (0.0,)


def from_config(config: Mapping[str, Any]) -> Scaling | None:
    """Map a diffusers configuration to its factors; None where the configuration has no factors.

    Either scaled = (raw - shift_factor) * scaling_factor, or, where statistics of each channel are given,
    scaled = (raw - latents_mean) / latents_std * scaling_factor; as the diffusers pipelines compute it.

    Raises:
        TypeError, ValueError, ZeroDivisionError: the factors are no numbers, or a standard deviation is 0.
    """
    factor, mean, std = (config.get(key) for key in ("scaling_factor", "latents_mean", "latents_std"))
    if mean is not None and std is not None:
        factor = 1.0 if factor is None else float(factor)
        return Scaling(tuple(factor / float(each) for each in std), tuple(map(float, mean)))
    if factor is None:
        return None
    return Scaling((float(factor),), (float(config.get("shift_factor") or 0.0),))


def same_numbers(ours: Sequence[float], theirs: Sequence[float], rel_tol: float = 1e-6) -> bool:
    """Tell whether two lists agree within a relative tolerance; a single number stands for any number of copies."""
    length = max(len(ours), len(theirs))
    if {len(ours), len(theirs)} - {1, length}:
        return False
    pairs = zip(spread(ours, length), spread(theirs, length), strict=True)
    return all(math.isclose(a, b, rel_tol=rel_tol, abs_tol=1e-9) for a, b in pairs)


def spread(numbers: Sequence[float], count: int) -> list[float]:
    """Map 1 or C numbers to `count` numbers."""
    return list(numbers) * (count // len(numbers))
