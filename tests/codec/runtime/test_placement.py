# SPDX-License-Identifier: Apache-2.0
"""Words become a device and a dtype; a device that is not there is refused."""

import pytest
import torch

from latentwire_codec.runtime.placement import DTYPE_NAMES, DTYPES, Placement
from latentwire_core.errors import ModelError

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="auto is the GPU there")
def test_auto_without_a_gpu_is_the_cpu_in_float32() -> None:
    assert Placement.choose() == Placement(CPU, torch.float32)


@pytest.mark.parametrize(("major", "dtype"), [(7, "float16"), (8, "bfloat16"), (9, "bfloat16")])
def test_auto_on_a_gpu_is_bfloat16_where_the_hardware_computes_in_it(
    major: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 5))
    assert Placement._fast_dtype(torch.device("cuda:0")) == DTYPES[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dtype_may_be_named(dtype: str) -> None:
    placement = Placement.choose("cpu", dtype)
    assert placement == Placement(CPU, DTYPES[dtype])
    assert DTYPE_NAMES[placement.dtype] == dtype


@pytest.mark.parametrize("device", ["", "gpu", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_refused_with_the_remedy(device: str) -> None:
    with pytest.raises(ModelError, match=rf"device '{device}' is not available: .*; use cpu or auto"):
        Placement.choose(device)


def test_an_unknown_dtype_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ModelError, match="dtype 'int8' is unknown; use auto, float32, bfloat16, float16"):
        Placement.choose("cpu", "int8")
