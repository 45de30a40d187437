# SPDX-License-Identifier: Apache-2.0
"""Half of a network -> the same in ONNX Runtime on this CPU, where it is installed.

In float32 only: its CPU kernels have no convolution in bfloat16.
"""

import importlib
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.throughput import halves
from benchmarks.throughput.halves import Half

PACKAGES = ("onnxruntime", "onnx")
FREE = {0: "batch", 2: "height", 3: "width"}


def compile_halves(module: Any) -> tuple[Half, Half]:
    """Map a float32 network to its encode and decode, float32 tensors to float32 tensors.

    They take images and latents of any size and number, and as many threads as torch has now.
    """
    return halves.compile_halves(module, _compiled)


def _compiled(half: nn.Module, example: Tensor) -> Half:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        graph = str(Path(folder) / "half.onnx")
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns about checks of shapes, and that there is a newer exporter
            # The newer one needs two further packages, and gives the same results.
            torch.onnx.export(
                half, (example,), graph, dynamo=False, input_names=["given"], output_names=["result"],
                dynamic_axes={"given": FREE, "result": FREE},
            )  # fmt: skip
        session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run(None, {"given": batch.contiguous().numpy()})[0])
