# SPDX-License-Identifier: Apache-2.0
"""The quality of a `.lat` payload, by name or number -> the size of its rounding steps."""

from numbers import Real

from latentwire_core.errors import TensorError

LOSSLESS = "lossless"
STEPS = {"cache": 0.17, "high": 0.35, "medium": 0.6, "low": 1.2}
"""Rounding steps in units; a unit is about the standard deviation of a channel."""
NAMES = (LOSSLESS, *STEPS)


def step_multiple(quality: str | float) -> float | None:
    """Map a quality to its steps in units; None for lossless.

    Raises:
        TensorError: the quality is neither a name in `NAMES` nor a finite number above 0.
    """
    if quality == LOSSLESS:
        return None
    multiple = STEPS.get(quality) if isinstance(quality, str) else quality
    if not (isinstance(multiple, Real) and 0 < multiple < float("inf")):
        raise TensorError(f"quality is {quality!r}; it must be {', '.join(NAMES)}, or steps in units, a number above 0")
    return multiple
