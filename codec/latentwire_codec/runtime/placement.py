# SPDX-License-Identifier: Apache-2.0
"""Options of the command line -> the device on which a network runs, and the dtype in which it computes."""

from dataclasses import dataclass

import torch

from latentwire_core.errors import ModelError

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
