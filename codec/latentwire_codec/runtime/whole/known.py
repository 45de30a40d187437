# SPDX-License-Identifier: Apache-2.0
"""A network of a known class -> the same network in bfloat16, whole layers at a time."""

from contextlib import suppress
from typing import Any

import torch
from torch import nn

from latentwire_codec.runtime.tiling.tiled import KLS, Whole


def whole_network(module: nn.Module, master: Any) -> Whole | None:
    """Map a module, and the same in float32 on the CPU, to its form in whole layers.

    Returns:
        None: the module is not in bfloat16 on a CPU with instructions for it, or its class is not known here.
    """
    parameter = next(module.parameters())
    if (parameter.device.type, parameter.dtype) != ("cpu", torch.bfloat16):
        return None
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    name = type(master).__name__
    if name == "AutoencoderLatentVAE":
        from latentwire_codec.runtime.whole.latent import WholeLatent

        return WholeLatent(master)
    if name in KLS:
        from latentwire_codec.runtime.whole.kl import WholeKL

        with suppress(NotImplementedError):
            return WholeKL(master)
    return None
