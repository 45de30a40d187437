# SPDX-License-Identifier: Apache-2.0
"""Where and how a network runs: a float32 module and an input batch -> finite float32 outputs.

Half precision can overflow (the SDXL VAE does in float16): a batch element whose output is not finite is computed
once more in float32, and refused if that is not finite either.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentwire_codec.networks.calling import Call
from latentwire_core.errors import ModelError, NonFiniteError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Placement:
    """The device a network runs on and the dtype it computes in."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, device: str = "auto", dtype: str = "auto") -> "Placement":
        """Map the words of the command line to a placement.

        Args:
            device: `auto` (the first CUDA device if there is one, else the CPU) or a torch device such as `cuda:1`.
            dtype: `auto` (bfloat16 on a GPU that computes in it, float16 on an older one, float32 on a CPU),
                `float32`, `bfloat16` or `float16`.

        Raises:
            ModelError: the device or dtype is unknown or not available here.
        """
        if device == "auto":
            device = "cuda:0" if torch.cuda.is_available() else "cpu"
        try:
            chosen = torch.device(device)
            torch.empty(1, device=chosen)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"device {device!r} is not available: {reason}; use cpu or auto") from error
        if dtype == "auto":
            return cls(chosen, cls._fast_dtype(chosen))
        if dtype not in DTYPES:
            raise ModelError(f"dtype {dtype!r} is unknown; use auto, {', '.join(DTYPES)}")
        return cls(chosen, DTYPES[dtype])

    @property
    def is_emulated(self) -> bool:
        """Whether the dtype is a half that this CPU has no instructions for: about ten times slower than float32."""
        if self.device.type != "cpu" or self.dtype == torch.float32:
            return False
        half = "bf16" if self.dtype == torch.bfloat16 else "fp16"
        return not getattr(torch.ops.mkldnn, f"_is_mkldnn_{half}_supported")()

    @staticmethod
    def _fast_dtype(device: torch.device) -> torch.dtype:
        if device.type != "cuda":
            return torch.float32
        # Ampere (8.0) is the first generation with bfloat16 matrix units; Turing only emulates it.
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 else torch.float16


class Runtime:
    """Runs one float32 module at a placement, in its memory format, and answers for its numbers.

    Args:
        module: the network in float32, on the CPU; it is kept as the source of every precision.
        placement: device and dtype to run at.
        prepare: maps the module, at the device and in a dtype, to what is called.
    """

    def __init__(
        self, module: nn.Module, placement: Placement, prepare: Callable[[Any], Any] = lambda module: module
    ) -> None:
        self.placement = placement
        self._prepare = prepare
        self._master = module.eval().requires_grad_(False)
        self._normalises = any(isinstance(layer, nn.GroupNorm) for layer in module.modules())
        self._has_time = any(parameter.ndim == 5 for parameter in module.parameters())
        self._prepared: dict[torch.dtype, Any] = {}
        self._network(placement.dtype)

    @property
    def network(self) -> Any:
        """What is called, in the placement's dtype."""
        return self._network(self.placement.dtype)

    def run(
        self,
        call: Call,
        batch: Tensor,
        on_retry: Callable[[list[int]], None] | None = None,
    ) -> tuple[Tensor, ...]:
        """Map a batch to the outputs of `call`, in float32 and finite, on the placement's device.

        On a CPU the elements run one by one: larger batches are no faster there, and each result is bitwise the
        same whatever else is in the batch. On a GPU they run together.

        Args:
            call: (prepared network, input batch in its dtype) -> output batches.
            batch: float (B,C,H,W), finite.
            on_retry: told the indices that were computed again in float32.

        Raises:
            NonFiniteError: an output is not finite even in float32.
        """
        with torch.inference_mode():
            if self.placement.device.type == "cpu" and len(batch) > 1:
                outputs = [self._forward(call, one, self.placement.dtype) for one in batch.split(1)]
                result = tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))
            else:
                result = self._forward(call, batch, self.placement.dtype)
            bad = _not_finite(result)
            if bad and self.placement.dtype != torch.float32:
                if on_retry is not None:
                    on_retry(bad)
                again = self._forward(call, batch[bad], torch.float32)
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

    def run_with_gradients(self, call: Call, batch: Tensor) -> tuple[Tensor, ...]:
        """Map a batch that is on the device to the outputs of `call`, in float32; gradients flow back to the batch."""
        return call(self._network(torch.float32), batch)

    def _forward(self, call: Call, batch: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        placed = batch.to(self.placement.device, dtype, memory_format=self._memory_format(dtype))
        return tuple(output.float() for output in call(self._network(dtype), placed))

    def _network(self, dtype: torch.dtype) -> Any:
        """Return what runs in `dtype` at the device; float32 beside a half is made at the first retry."""
        if dtype not in self._prepared:
            # Weights made in inference mode would never let a gradient through.
            with torch.inference_mode(False), torch.no_grad():
                module = self._master
                if (self.placement.device.type, dtype) != ("cpu", torch.float32):
                    module = copy.deepcopy(module)
                # nn.Module.to on purpose: a diffusers model's own warns about keeping layers in float32.
                nn.Module.to(module, self.placement.device, dtype)
                nn.Module.to(module, memory_format=self._memory_format(dtype))  # type: ignore[call-overload]
                self._prepared[dtype] = self._prepare(module)
        return self._prepared[dtype]

    def _memory_format(self, dtype: torch.dtype) -> torch.memory_format:
        """Return channels_last, which is faster, but where it costs accuracy.

        The CPU's float32 GroupNorm in channels_last sums the squares in one pass: on a 512x512 photograph a small
        AutoencoderKL is then off by 7e-4, against 4e-6 in the contiguous format (torch 2.13).
        """
        if self._has_time:  # 3-D convolutions have no such format
            return torch.contiguous_format
        if self._normalises and dtype == torch.float32 and self.placement.device.type == "cpu":
            return torch.contiguous_format
        return torch.channels_last


def _not_finite(outputs: tuple[Tensor, ...]) -> list[int]:
    """Return the batch indices at which any of the outputs is not finite."""
    finite = torch.stack([output.flatten(1).isfinite().all(dim=1) for output in outputs]).all(dim=0)
    return torch.nonzero(~finite).flatten().tolist()
