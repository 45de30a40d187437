# SPDX-License-Identifier: Apache-2.0
"""A network and a way to run it -> images in host memory to latents in host memory, and back.

Eager is diffusers as its users call it. Every engine starts and ends with float32 tensors on the CPU, so that copies to
and from a device count for each engine alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from benchmarks.report.networks import Network
from latentwire_codec.load import load_autoencoder
from latentwire_codec.runtime.placement import Placement

EAGER, LATENTWIRE = "eager", "latentwire"
OPERATIONS = ("encode", "decode")


@dataclass(frozen=True)
class Case:
    """A network and a way to run it.

    Attributes:
        network: the network.
        engine: EAGER or LATENTWIRE.
        dtype: dtype of the arithmetic; `auto`: LATENTWIRE chooses.
        channels_last: whether EAGER runs in channels_last; otherwise contiguous.
        tiled: whether EAGER runs with the tiling of its class.
        options: further arguments of `load_autoencoder`.
        name: its name in tables; empty: derived from the other attributes.
    """

    network: Network
    engine: str
    dtype: str = "float32"
    channels_last: bool = False
    tiled: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def label(self) -> str:
        """Return the name in tables, without the network."""
        if self.name:
            return self.name
        if self.engine == LATENTWIRE:
            return LATENTWIRE if self.dtype == "auto" else f"{LATENTWIRE} {self.dtype}"
        words = f"{self.engine} {self.dtype}"
        return words + (", channels_last" if self.channels_last else "") + (", tiled" if self.tiled else "")

    @property
    def key(self) -> tuple[str, str]:
        """Return the names of the network and of the case, which identify the case."""
        return self.network.name, self.label

    def refusal(self, device: str) -> str:
        """Return why the case is too slow to be measured on a device; empty: it is not too slow."""
        if not Placement.choose(device, self.dtype).is_emulated:
            return ""
        return f"this CPU has no instructions for {self.dtype}: about ten times slower than float32"

    def load(self, device: str) -> "Runner":
        """Load the network; raises ModelError."""
        if self.engine == LATENTWIRE:
            model = load_autoencoder(self.network.source, device=device, dtype=self.dtype, **self.options)
            return Runner(lambda images: model.encode(images).mode(), model.decode, model.spec.dtype)
        return self._eager(Placement.choose(device, self.dtype))

    def _eager(self, placement: Placement) -> "Runner":
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        module = self.network.module()
        # nn.Module.to on purpose: `to` of a diffusers model takes no memory format.
        torch.nn.Module.to(module, placement.device, placement.dtype, memory_format=memory_format)  # type: ignore[call-overload]
        if self.tiled:
            module.enable_tiling()

        def placed(batch: Tensor) -> Tensor:
            return batch.to(placement.device, placement.dtype, memory_format=memory_format)

        @torch.inference_mode()
        def encode(images: Tensor) -> Tensor:
            answer = module.encode(placed(images))
            latents: Tensor = answer.latents if hasattr(answer, "latents") else answer.latent_dist.mode()
            return latents.float().cpu()

        @torch.inference_mode()
        def decode(latents: Tensor) -> Tensor:
            images: Tensor = module.decode(placed(latents)).sample
            return images.float().cpu()

        return Runner(encode, decode, self.dtype)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Undo `to_json`."""
        return cls(**{**values, "network": Network(**values["network"])})


@dataclass(frozen=True)
class Runner:
    """A loaded case.

    Attributes:
        encode: maps images, float32 (B,3,H,W) in [-1,1], to the mode of their latents, float32 (B,C,h,w), raw.
        decode: maps raw latents, float32 (B,C,h,w), to images, float32 (B,3,H,W).
        dtype: dtype of the arithmetic.
    """

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    dtype: str

    def run(self, operation: str, batch: Tensor) -> Tensor:
        """Map a batch to the output of `encode` or `decode`."""
        return self.encode(batch) if operation == "encode" else self.decode(batch)


def of_network(network: Network) -> list[Case]:
    """Return the cases of a network that are compared; the first is the reference of the others."""
    return [
        Case(network, EAGER),
        Case(network, EAGER, "bfloat16", channels_last=True),
        Case(network, LATENTWIRE, "auto"),
        Case(network, LATENTWIRE, options={"rewrites": False}, name=f"{LATENTWIRE} float32, no rewrites"),
    ]
