# SPDX-License-Identifier: Apache-2.0
"""Tensors become bytes and bytes tensors, whatever the sides and the order of the elements in memory."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentwire_server.doors.tensors import to_bytes, to_tensor

SIDES = st.lists(st.integers(1, 4), min_size=4, max_size=4).map(tuple)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32], ids=str)
@given(shape=SIDES, memory_format=st.sampled_from([torch.contiguous_format, torch.channels_last]))
def test_a_tensor_of_any_sides_and_strides_comes_back_from_its_bytes(
    dtype: torch.dtype, shape: tuple[int, ...], memory_format: torch.memory_format
) -> None:
    values = torch.arange(math.prod(shape)).view(shape).to(dtype).to(memory_format=memory_format)
    back = to_tensor(to_bytes(values), dtype, shape, field="values", owner="the tensor")
    assert torch.equal(back, values)
