# SPDX-License-Identifier: Apache-2.0
"""The names of images -> the indices to train on, and those held out to measure on."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from latentwire_train.data.folder import DataError


def split_by_hash(names: Sequence[str], held_out_share: float, *, salt: str = "") -> tuple[list[int], list[int]]:
    """Names -> the indices to train on, and those held out, by the SHA-256 of each name.

    Whether an image is held out depends on its own name only, so that it stays on its side when files are added or
    removed. The one exception: where no name falls under the share, the one with the smallest hash is held out.

    Args:
        names: relative paths, two at least.
        held_out_share: between 0 and 1; the part to hold out, on average.
        salt: changes the split as a whole.

    Returns:
        Indices to train on, ascending; and indices held out, in the order of their hashes, so that the first k of
        them are a fair sample too.

    Raises:
        DataError: fewer than two names, or nothing would be left to train on.
        ValueError: the share is not between 0 and 1.
    """
    if not 0 < held_out_share < 1:
        raise ValueError(f"held_out_share is {held_out_share}; it must lie between 0 and 1, both excluded")
    if len(names) < 2:
        raise DataError(f"{len(names)} images cannot be split; two are needed, one to train on and one to measure")
    ranks = [_hash_fraction(salt, name) for name in names]
    order = sorted(range(len(names)), key=lambda index: (ranks[index], names[index]))
    held_out = [index for index in order if ranks[index] < held_out_share] or order[:1]
    if len(held_out) == len(names):
        raise DataError(
            f"all {len(names)} images would be held out by a share of {held_out_share}; "
            "take a smaller share, or more images"
        )
    away = set(held_out)
    return [index for index in range(len(names)) if index not in away], held_out


def split_by_folder(names: Sequence[str], folders: Iterable[str]) -> tuple[list[int], list[int]]:
    """Names -> the indices to train on, and those held out because they lie in one of `folders`.

    Args:
        names: relative paths.
        folders: relative to the same root, such as `val` or `photos/eval`.

    Raises:
        DataError: a folder holds no image, or nothing would be left to train on.
    """
    held_out: set[int] = set()
    for folder in folders:
        prefix = PurePosixPath(folder)
        inside = [index for index, name in enumerate(names) if prefix in PurePosixPath(name).parents]
        if not inside:
            raise DataError(
                f"no image lies in the folder {folder!r} that shall be held out; give a path below the root"
            )
        held_out.update(inside)
    train = [index for index in range(len(names)) if index not in held_out]
    if not train:
        raise DataError(f"all {len(names)} images lie in the folders held out; leave some to train on")
    return train, sorted(held_out)


def _hash_fraction(salt: str, name: str) -> float:
    """A name -> a number in [0, 1): the first 53 bits of SHA-256(salt, NUL, name) as a fraction."""
    digest = hashlib.sha256(os.fsencode(f"{salt}\0{name}")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
