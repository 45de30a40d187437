# SPDX-License-Identifier: Apache-2.0
"""A network as diffusers loads it -> the same network compiled by OpenVINO for this CPU, where it is installed."""

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

TRIAL_SIDE = 64
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


def openvino_refusal(device: str) -> str:
    """Return why OpenVINO is not measured beside networks on a device; empty: it is."""
    if importlib.util.find_spec("openvino") is None:
        return "OpenVINO is not installed (pip install openvino)"
    return "" if device == "cpu" else "OpenVINO is measured on CPUs only"


class _Encoder(nn.Module):
    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Any:
        answer = self.module.encode(images)
        return answer.latents if hasattr(answer, "latents") else answer.latent_dist.mode()


class _Decoder(nn.Module):
    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, latents: Tensor) -> Any:
        return self.module.decode(latents).sample


def compile_halves(module: Any, dtype: str) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Map a float32 network to its encode and decode, float32 tensors to float32 tensors, computed in `dtype`.

    They take images and latents of any size, and as many threads as torch has now.
    """
    openvino = importlib.import_module("openvino")
    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }

    def compiled(half: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns about checks of shapes
            graph = openvino.convert_model(half, example_input=example)
        request = core.compile_model(graph, "CPU", options).create_infer_request()
        return lambda batch: torch.from_numpy(request.infer([batch.contiguous().numpy()])[0].copy())

    images = torch.zeros(1, 3, TRIAL_SIDE, TRIAL_SIDE)
    encoder = _Encoder(module)
    with torch.inference_mode():
        latents = encoder(images)
    return compiled(encoder, images), compiled(_Decoder(module), latents.clone())
