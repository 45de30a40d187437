# SPDX-License-Identifier: Apache-2.0
"""Two tensors that are to be compared -> the same in a precision to compare them in."""

import torch
from torch import Tensor

from latentwire_core.errors import TensorError


def as_float(x: Tensor) -> Tensor:
    """Return a tensor in float32, or in its own dtype where that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def float_pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in float32 at least.

    Raises:
        TensorError: their shapes differ; broadcasting would compare what does not belong together, without a word.
    """
    if a.shape != b.shape:
        raise TensorError(f"the tensors have shapes {tuple(a.shape)} and {tuple(b.shape)}; both must be equal")
    return as_float(a), as_float(b)
