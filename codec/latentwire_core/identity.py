# SPDX-License-Identifier: Apache-2.0
"""Names of latent spaces and digests of weights -> whether latents and a model belong to one space."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

T = TypeVar("T")


class Origin(Protocol):
    """Anything that states where latents come from: latents, a model, a payload's header, attribute vectors."""

    @property
    def latent_space(self) -> str:
        """The name of the space; empty: unnamed or unknown."""

    @property
    def weights_digest(self) -> str:
        """The digest of the weights, or its first digits; empty: unknown."""


def same_space(one: Origin, other: Origin) -> bool:
    """Tell whether two origins may share a latent space; an unknown origin fits everything.

    Names decide. Where one has no name, the weights stand for the space: the digests must be the same, as far as
    both are known.
    """
    if one.latent_space and other.latent_space:
        return one.latent_space == other.latent_space
    if one.weights_digest and other.weights_digest:
        digits = min(len(one.weights_digest), len(other.weights_digest))
        return one.weights_digest[:digits] == other.weights_digest[:digits]
    return not (_known(one) and _known(other))


def space_in_words(origin: Origin) -> str:
    """Return the name of a space for a message: the name, or the first digits of the weights' digest."""
    if origin.latent_space:
        return repr(origin.latent_space)
    return f"unnamed, of weights {origin.weights_digest[:12]}" if origin.weights_digest else "unknown"


def weights_digest(tensors: Mapping[str, T], read: Callable[[T], tuple[str, tuple[int, ...], memoryview]]) -> str:
    """Map tensors, by name, to the SHA-256 that identifies them, 64 hex digits.

    For each tensor, sorted by name: the name, a zero byte, the dtype (`float32`), a zero byte, the shape (`192,4,1,1`),
    a zero byte, the elements in C order, little-endian. `read` maps a tensor to its dtype, shape and elements.
    """
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        dtype, shape, elements = read(tensors[name])
        sha256.update(f"{name}\0{dtype}\0{','.join(map(str, shape))}\0".encode())
        sha256.update(elements)
    return sha256.hexdigest()


def _known(origin: Origin) -> bool:
    return bool(origin.latent_space or origin.weights_digest)
