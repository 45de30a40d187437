# SPDX-License-Identifier: Apache-2.0
"""Encoded images -> the files that a trainer reads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from latentwire_cache.buckets import Frame

if TYPE_CHECKING:
    from latentwire_cache.manifest import Manifest

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Encoded:
    """One item that was encoded: raw float32 arrays (C,h,w)."""

    key: str
    source_path: str | None
    frame: Frame
    mean: Array
    logvar: Array | None
    sample: Array | None
    flipped: "Encoded | None"
    alpha_mask: Array | None
    caption: str | None
    label: int | None


@dataclass(frozen=True)
class Space:
    """The latent space of a cache: scaled = (raw - shift) * scale."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]
    latent_space: str
    weights_digest: str
    dtype: str


class Format(Protocol):
    """The files of a trainer."""

    name: str
    rule: str
    needs: frozenset[str]
    per_item: bool

    def files(self, items: Sequence[Encoded], space: Space, shard: int) -> Iterator[tuple[str, bytes]]:
        """Map the items of a shard to files: relative path and whole bytes, the same for the same items."""
        ...

    def index(self, manifests: "Sequence[Manifest]") -> Iterator[tuple[str, bytes]]:
        """Map the manifests of all shards to files that are made once at the end."""
        ...


FORMATS: Mapping[str, Format] = {}
