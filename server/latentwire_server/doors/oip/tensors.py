# SPDX-License-Identifier: Apache-2.0
"""Input messages of the Open Inference Protocol -> tensors and files; tensors and files -> raw output contents."""

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentwire_server.doors.oip.messages import ModelInferResponse
from latentwire_server.doors.tensors import to_bytes, to_tensor
from latentwire_server.errors import InvalidRequest

FLOATS = {"FP32": torch.float32, "FP16": torch.float16, "BF16": torch.bfloat16}
DTYPES = {"UINT8": torch.uint8, **FLOATS}
TO_DATATYPE = {dtype: name for name, dtype in DTYPES.items()}
BYTES = "BYTES"
# The field with the elements that a client sends one by one; the protocol has no such field for FP16 and BF16.
TYPED_CONTENTS = {"UINT8": "uint_contents", "FP32": "fp32_contents", BYTES: "bytes_contents"}
# So many of those elements are converted at once: another thread converts, and still holds up the event loop.
PIECE = 2**16
# The length comes before each element of BYTES.
LENGTH = struct.Struct("<I")

Value = Tensor | tuple[bytes, ...]
"""A tensor's elements: numbers, or files in one flat tuple."""


def to_value(tensor: Any, raw: Sequence[bytes]) -> Value:
    """Map an InferInputTensor to its elements, in memory of their own.

    Args:
        tensor: the message.
        raw: the raw contents as the only element; empty where the message itself holds the elements.

    Raises:
        InvalidRequest: the datatype is unknown, or the elements do not fit the datatype and the shape.
    """
    field, datatype, shape = f"inputs[{tensor.name}]", tensor.datatype, tuple(tensor.shape)
    if datatype not in (*DTYPES, BYTES):
        raise InvalidRequest(
            f"{field}.datatype", f"{tensor.name} is {datatype!r}; accepted are {', '.join(DTYPES)} and {BYTES}"
        )
    if not 1 <= len(shape) <= 4 or min(shape) < 1:
        raise InvalidRequest(
            f"{field}.shape", f"{tensor.name} has the shape {shape}; it needs 1 to 4 sides, each at least 1"
        )
    if datatype == BYTES and shape not in ((shape[0],), (shape[0], 1)):
        raise InvalidRequest(f"{field}.shape", f"{tensor.name} has the shape {shape}; BYTES is of (B,1) or (B,)")
    if not raw:
        return _typed(tensor, field, shape)
    if tensor.contents.ByteSize():
        raise InvalidRequest(f"{field}.contents", f"{tensor.name} has contents beside raw contents; send one of them")
    if datatype == BYTES:
        return _split(raw[0], field, tensor.name, math.prod(shape))
    return to_tensor(raw[0], DTYPES[datatype], shape, field="raw_input_contents", owner=tensor.name, datatype=datatype)


def from_values(values: dict[str, Value]) -> Any:
    """Map outputs by name to a ModelInferResponse with their raw contents.

    Clients read only raw contents, and FP16 and BF16 have no other form. Files have the shape (B,1).
    """
    response = ModelInferResponse()
    for name, value in values.items():
        if isinstance(value, Tensor):
            datatype, shape = TO_DATATYPE[value.dtype], tuple(value.shape)
            raw = to_bytes(value)
        else:
            datatype, shape = BYTES, (len(value), 1)
            raw = b"".join(LENGTH.pack(len(one)) + one for one in value)
        response.outputs.add(name=name, datatype=datatype, shape=shape)
        response.raw_output_contents.append(raw)
    return response


def _typed(tensor: Any, field: str, shape: tuple[int, ...]) -> Value:
    """Map the elements in the message itself to a value."""
    contents = TYPED_CONTENTS.get(tensor.datatype)
    if contents is None:
        raise InvalidRequest(f"{field}.datatype", f"{tensor.datatype} travels only in raw_input_contents; use those")
    elements = getattr(tensor.contents, contents)
    if len(elements) != math.prod(shape):
        raise InvalidRequest(
            f"{field}.contents",
            f"{tensor.name} has {len(elements)} elements in {contents}, and no raw_input_contents; "
            f"the shape {shape} takes {math.prod(shape)}",
        )
    if tensor.datatype == BYTES:
        return tuple(elements)
    array = np.empty(len(elements), np.uint32 if tensor.datatype == "UINT8" else np.float32)
    for start in range(0, len(elements), PIECE):
        array[start : start + PIECE] = elements[start : start + PIECE]
    if tensor.datatype == "UINT8":
        if array.max() > 255:
            raise InvalidRequest(f"{field}.contents", f"{tensor.name} has a {array.max()}; UINT8 goes up to 255")
        array = array.astype(np.uint8)
    return torch.from_numpy(array.reshape(shape))


def _split(raw: bytes, field: str, name: str, wanted: int) -> tuple[bytes, ...]:
    """Cut the raw contents of BYTES into their elements."""
    elements: list[bytes] = []
    at = 0
    # One element more than wanted is enough to refuse the tensor.
    while at < len(raw) and len(elements) <= wanted:
        begin = at + LENGTH.size
        size = LENGTH.unpack_from(raw, at)[0] if begin <= len(raw) else 0
        at = begin + size
        if at > len(raw):
            raise InvalidRequest(
                "raw_input_contents",
                f"{name} ends within element {len(elements)}; each is its length in 4 bytes, little-endian, and then "
                "as many bytes",
            )
        elements.append(raw[begin:at])
    if len(elements) != wanted:
        more = "more" if len(elements) > wanted else str(len(elements))
        raise InvalidRequest(f"{field}.shape", f"{name} has {more} elements of BYTES; its shape says {wanted}")
    return tuple(elements)
