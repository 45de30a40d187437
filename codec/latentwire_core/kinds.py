# SPDX-License-Identifier: Apache-2.0
"""Names of the views of a posterior that an encoder returns."""

from enum import StrEnum
from typing import NoReturn


class LatentKind(StrEnum):
    """A view of the posterior: its mode, a sample, or its moments (mean and log-variance)."""

    MODE = "mode"
    SAMPLE = "sample"
    MOMENTS = "moments"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"kind is {value!r}; it must be one of {', '.join(cls)}")
