# SPDX-License-Identifier: Apache-2.0
"""Half of a network -> the same compiled by OpenVINO for this CPU, where it is installed."""

import importlib
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.throughput import halves
from benchmarks.throughput.halves import Half

PACKAGES = ("openvino",)
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


def compile_halves(module: Any, dtype: str) -> tuple[Half, Half]:
    """Map a float32 network to its encode and decode, float32 tensors to float32 tensors, computed in `dtype`.

    They take images and latents of any size and number, and as many threads as torch has now.
    """
    return halves.compile_halves(module, partial(_compiled, dtype=dtype))


def _compiled(half: nn.Module, example: Tensor, dtype: str) -> Half:
    openvino = importlib.import_module("openvino")
    options = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns about checks of shapes
        graph = openvino.convert_model(half, example_input=example)
    request = openvino.Core().compile_model(graph, "CPU", options).create_infer_request()
    return lambda batch: torch.from_numpy(request.infer([batch.contiguous().numpy()])[0].copy())
