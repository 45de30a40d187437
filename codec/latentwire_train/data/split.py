# SPDX-License-Identifier: Apache-2.0
"""The names of images -> the indices to train on, and those held out to measure on."""

import hashlib
import os
from collections.abc import Sequence

from latentwire_core.errors import DataError


def split_by_hash(names: Sequence[str], held_out_share: float) -> tuple[list[int], list[int]]:
    """Map names to the indices to train on and the held-out indices, by the SHA-256 of each name.

    A share between 0 and 1 is held out on average. An image's own name alone decides on which side it is, so an image
    keeps its side when others are added or removed. There is one exception: where no name falls under the share, the
    name with the smallest hash is held out.

    Returns:
        Indices to train on, ascending; and held-out indices in the order of their hashes, so that the first k of them
        are a fair sample too.

    Raises:
        DataError: there are fewer than two names, or no image would be left to train on.
        ValueError: the share is not between 0 and 1.
    """
    if not 0 < held_out_share < 1:
        raise ValueError(f"held_out_share is {held_out_share}; it must lie between 0 and 1, both excluded")
    if len(names) < 2:
        raise DataError(f"{len(names)} images cannot be split; two are needed, one to train on and one to measure")
    ranks = [_hash_fraction(name) for name in names]
    order = sorted(range(len(names)), key=lambda index: (ranks[index], names[index]))
    held_out = [index for index in order if ranks[index] < held_out_share] or order[:1]
    if len(held_out) == len(names):
        raise DataError(f"all {len(names)} images would be held out by a share of {held_out_share}; take a smaller one")
    return sorted(set(range(len(names))) - set(held_out)), held_out


def _hash_fraction(name: str) -> float:
    """Map a name to a number in [0, 1): the first 53 bits of SHA-256(NUL, name) as a fraction."""
    digest = hashlib.sha256(b"\0" + os.fsencode(name)).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
