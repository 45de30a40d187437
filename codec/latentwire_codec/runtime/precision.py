# SPDX-License-Identifier: Apache-2.0
"""A float32 network and an input batch -> finite float32 outputs, computed on a device and in a dtype.

Half precision can overflow (the SDXL VAE does in float16). A batch element whose output is not finite is computed once
more in float32, and refused if that output is not finite either.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from latentwire_codec.runtime.placement import Placement
from latentwire_codec.runtime.tiling.footprint import Half
from latentwire_codec.runtime.tiling.tiled import Tiled
from latentwire_core.errors import NonFiniteError


class Runtime:
    """Runs one module at a placement, in its memory format, and checks that its outputs are finite.

    The module is in float32, on the CPU; every other precision is made from it. `prepare` maps the module, at the
    device and in a dtype, and the module in float32, to the network that runs.
    """

    def __init__(self, module: nn.Module, placement: Placement, prepare: Callable[[Any, Any], Tiled]) -> None:
        self.placement = placement
        self._prepare = prepare
        self._master = module.eval().requires_grad_(False)
        self._normalises = any(isinstance(layer, nn.GroupNorm) for layer in module.modules())
        self._has_time = any(parameter.ndim == 5 for parameter in module.parameters())
        self._prepared: dict[torch.dtype, Tiled] = {}
        self._network(placement.dtype)

    @property
    def network(self) -> Tiled:
        """The network in the placement's dtype."""
        return self._network(self.placement.dtype)

    def run(
        self,
        half: Half,
        batch: Tensor,
        on_retry: Callable[[list[int]], None] = lambda indices: None,
        pause: Callable[[], None] = lambda: None,
    ) -> tuple[Tensor, ...]:
        """Map a batch, float (B,C,H,W) and finite, to the finite float32 outputs of one half of the network.

        They are on the placement's device. On a CPU the elements run one by one: larger batches are no faster there,
        and each result is bitwise the same whatever else is in the batch. On a GPU they run together. The callbacks
        are explained at `Autoencoder.encode`.

        Raises:
            NonFiniteError: an output is not finite even in float32.
        """
        with torch.inference_mode():
            if self.placement.device.type == "cpu" and len(batch) > 1:
                outputs = [self._forward(half, one, self.placement.dtype, pause) for one in batch.split(1)]
                result = tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))
            else:
                result = self._forward(half, batch, self.placement.dtype, pause)
            bad = _not_finite(result)
            if bad and self.placement.dtype != torch.float32:
                on_retry(bad)
                again = self._forward(half, batch[bad], torch.float32, pause)
                for whole, part in zip(result, again, strict=True):
                    whole[bad] = part
                bad = _not_finite(result)
            if bad:
                largest = batch[bad].abs().max().item()
                raise NonFiniteError(
                    f"the output is not finite even in float32; the input's largest magnitude is {largest:.3g}; "
                    "check how the input was made and scaled"
                )
            return result

    def run_with_gradients(self, half: Half, batch: Tensor) -> tuple[Tensor, ...]:
        """Map a float32 batch on the device to the outputs of one half; gradients flow back to the batch."""
        return self._network(torch.float32).run_whole(half, batch)

    def _forward(self, half: Half, batch: Tensor, dtype: torch.dtype, pause: Callable[[], None]) -> tuple[Tensor, ...]:
        network = self._network(dtype)
        if network.runs_whole(half, batch.shape):
            placed = batch.to(self.placement.device, torch.float32)
        else:
            placed = batch.to(self.placement.device, dtype, memory_format=self._memory_format(dtype))
        return tuple(output.float() for output in network.run(half, placed, pause))

    def _network(self, dtype: torch.dtype) -> Tiled:
        """Return the network in `dtype` at the device; float32 beside half precision is made at the first retry."""
        if dtype not in self._prepared:
            # Weights made in inference mode would never let a gradient through.
            with torch.inference_mode(False), torch.no_grad():
                module = self._master
                if (self.placement.device.type, dtype) != ("cpu", torch.float32):
                    module = copy.deepcopy(module)
                # nn.Module.to on purpose: a diffusers model's own warns about keeping layers in float32.
                nn.Module.to(module, self.placement.device, dtype)
                nn.Module.to(module, memory_format=self._memory_format(dtype))  # type: ignore[call-overload]
                self._prepared[dtype] = self._prepare(module, self._master)
        return self._prepared[dtype]

    def _memory_format(self, dtype: torch.dtype) -> torch.memory_format:
        """Return channels_last, which is faster, except where it costs accuracy.

        The CPU's float32 GroupNorm in channels_last sums the squares in one pass: on a 512x512 photograph a small
        AutoencoderKL is then off by 7e-4, against 4e-6 in the contiguous format (torch 2.13).
        """
        if self._has_time:  # 3-D convolutions have no such format
            return torch.contiguous_format
        if self._normalises and dtype == torch.float32 and self.placement.device.type == "cpu":
            return torch.contiguous_format
        return torch.channels_last


def _not_finite(outputs: tuple[Tensor, ...]) -> list[int]:
    """Return the batch indices at which an output is not finite."""
    finite = torch.stack([output.flatten(1).isfinite().all(dim=1) for output in outputs]).all(dim=0)
    return torch.nonzero(~finite).flatten().tolist()
