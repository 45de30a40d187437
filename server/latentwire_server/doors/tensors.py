# SPDX-License-Identifier: Apache-2.0
"""Raw bytes, little-endian and in C order <-> tensors, for the doors whose protocols carry tensors as raw bytes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from latentwire_server.engine.jobs import plain
from latentwire_server.errors import InvalidRequest

MOST_SIDES = 64  # torch has no more


def to_tensor(
    data: bytes | bytearray, dtype: torch.dtype, shape: Sequence[int], *, field: str, owner: str, datatype: str = ""
) -> Tensor:
    """Map bytes to a tensor that may be written to: a copy of `bytes`, or the memory of a `bytearray`.

    Args:
        data: the elements.
        dtype: their dtype.
        shape: the tensor's shape, each side at least 1.
        field: the field of the protocol that has the bytes.
        owner: what has the bytes, for the message.
        datatype: the protocol's name for the dtype; empty: torch's.

    Raises:
        InvalidRequest: the shape has too many sides, or the bytes are more or fewer than the dtype and the shape say.
    """
    if len(shape) > MOST_SIDES:
        raise InvalidRequest(field, f"{owner} has a shape of {len(shape)} sides; {MOST_SIDES} are the most, send 4")
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise InvalidRequest(
            field, f"{owner} has {len(data)} bytes; {datatype or plain(dtype)} of the shape {shape} takes {wanted}"
        )
    return torch.frombuffer(bytearray(data) if isinstance(data, bytes) else data, dtype=dtype).view(tuple(shape))


def to_bytes(tensor: Tensor) -> bytes:
    """Map a tensor to its bytes."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
