# SPDX-License-Identifier: Apache-2.0
"""A wanted number of bytes, or a wanted PSNR -> the `.lat` payload that meets it, found by bisecting the step.

    payload = largest_within(partial(compress_latents, latents), 5000)

It needs no torch and no coder: the caller makes the payloads, here or on a server.
"""

from collections.abc import Callable

Attempt = Callable[[float], bytes]
"""Maps a quality, as steps in units, to a payload; see `compress_latents`."""

FINEST, COARSEST = -6.0, 4.0
"""log2 of the steps that are tried, in units: from almost no loss to almost no content."""
RESOLUTION = 1 / 64
"""Octaves of the step. Where steps are fine, an octave is 1 bit for each latent and 6 dB; elsewhere it is less."""


def largest_within(attempt: Attempt, most_bytes: int) -> bytes:
    """Return the largest payload that has at most `most_bytes`.

    It makes 11 payloads or fewer. The step is at most 1.1 % coarser than the best one, so that the payload has less
    than 1/64 bit for each latent to spare, or has the finest step that is of use.

    Raises:
        ValueError: even the coarsest payload has more bytes.
    """
    found, coarsest = _farthest(attempt, lambda payload: len(payload) <= most_bytes, COARSEST, FINEST)
    if found is None:
        raise ValueError(f"{most_bytes} bytes cannot be reached; the smallest payload has {len(coarsest)}")
    return found


def smallest_with(attempt: Attempt, measure: Callable[[bytes], float], least: float) -> bytes:
    """Return the smallest payload whose measure, such as the PSNR of the decoded image, is at least `least`.

    It makes 11 payloads or fewer. The step is at most 1.1 % finer than the best one, which is about 0.1 dB where steps
    are fine. A measure that goes up and down with the step by more may be met with a larger payload than needed.

    Raises:
        ValueError: even the finest payload measures less.
    """
    found, finest = _farthest(attempt, lambda payload: measure(payload) >= least, FINEST, COARSEST)
    if found is None:
        raise ValueError(f"{least:g} cannot be reached; the finest payload measures {measure(finest):.4g}")
    return found


def _farthest(attempt: Attempt, fits: Callable[[bytes], bool], near: float, far: float) -> tuple[bytes | None, bytes]:
    """Bisect log2 of the step between `near` and `far`.

    Returns:
        the payload that fits with the step farthest from `near`, or None where not even the payload at `near` fits;
        and the payload at `near`.
    """
    first = attempt(2.0**near)
    if not fits(first):
        return None, first
    found = first
    while abs(far - near) > RESOLUTION:
        middle = (near + far) / 2
        payload = attempt(2.0**middle)
        if fits(payload):
            found, near = payload, middle
        else:
            far = middle
    return found, first
