# SPDX-License-Identifier: Apache-2.0
"""A network and a way to run it -> images in host memory to latents in host memory, and back; the number of operations.

Eager is diffusers as its users call it. Every engine starts and ends with float32 tensors on the CPU, so that copies to
and from a device count for each engine alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report.networks import Network
from benchmarks.report.rows import Row
from benchmarks.throughput import onnx, openvino
from benchmarks.throughput.halves import refusal
from latentwire_codec.load import MEASURED, load_autoencoder
from latentwire_codec.runtime.placement import Placement

EAGER, LATENTWIRE, ONNX, OPENVINO = "eager", "latentwire", "onnx runtime", "openvino"
OPERATIONS = ("encode", "decode")
TERA = 1e12
MATRIX_SIDES = {"cpu": 2048, "cuda": 8192}


@dataclass(frozen=True)
class Case:
    """A network and a way to run it."""

    network: Network
    engine: str  # EAGER, LATENTWIRE, ONNX or OPENVINO
    dtype: str = "float32"  # dtype of the arithmetic; MEASURED: LATENTWIRE chooses, as its server does
    channels_last: bool = False  # whether EAGER runs in channels_last; otherwise contiguous
    tiled: bool = False  # whether EAGER runs with the tiling of its class
    options: Mapping[str, Any] = field(default_factory=dict)  # further arguments of `load_autoencoder`
    name: str = ""  # its name in tables; empty: derived from the other attributes

    @property
    def label(self) -> str:
        """Return the name in tables, without the network."""
        if self.name:
            return self.name
        if self.engine == LATENTWIRE:
            return LATENTWIRE if self.dtype == MEASURED else f"{LATENTWIRE} {self.dtype}"
        words = f"{self.engine} {self.dtype}"
        return words + (", channels_last" if self.channels_last else "") + (", tiled" if self.tiled else "")

    @property
    def key(self) -> tuple[str, str]:
        """Return the names of the network and of the case, which identify the case."""
        return self.network.name, self.label

    def row(self, operation: str, height: int, width: int) -> Row:
        """Return the first fields of a row of the case."""
        name, label = self.key
        return {"network": name, "case": label, "operation": operation, "width": width, "height": height}

    def refusal(self, device: str, emulated: bool) -> str:
        """Return why the case is not measured on a device, where dtypes may be `emulated` or not; empty: it is."""
        packages = {OPENVINO: openvino.PACKAGES, ONNX: onnx.PACKAGES}.get(self.engine)
        if packages and (reason := refusal(packages, Placement.choose(device).device.type)):
            return reason
        if emulated or self.dtype == MEASURED or not Placement.choose(device, self.dtype).is_emulated:
            return ""
        return f"this CPU has no instructions for {self.dtype}: about ten times slower than float32"

    def load(self, device: str) -> "Runner":
        """Load the network; raises ModelError."""
        if self.engine == LATENTWIRE:
            model = load_autoencoder(self.network.source, device=device, dtype=self.dtype, **self.options)
            return Runner(lambda images: model.encode(images).mode(), model.decode, model.spec.dtype)
        if self.engine == OPENVINO:
            return Runner(*openvino.compile_halves(self.network.module(), self.dtype), self.dtype)
        if self.engine == ONNX:
            return Runner(*onnx.compile_halves(self.network.module()), self.dtype)
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


@dataclass(frozen=True)
class Runner:
    """A loaded case."""

    # maps images, float32 (B,3,H,W) in [-1,1], to the mode of their latents, float32 (B,C,h,w), raw
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]  # maps raw latents, float32 (B,C,h,w), to images, float32 (B,3,H,W)
    dtype: str  # dtype of the arithmetic

    def run(self, operation: str, batch: Tensor) -> Tensor:
        """Map a batch to the output of `encode` or `decode`."""
        return self.encode(batch) if operation == "encode" else self.decode(batch)


def of_network(network: Network) -> list[Case]:
    """Return the cases of a network that are compared; the first is the reference of the others."""
    return [
        Case(network, EAGER),
        Case(network, EAGER, "bfloat16", channels_last=True),
        Case(network, ONNX),
        Case(network, OPENVINO),
        Case(network, OPENVINO, "bfloat16"),
        Case(network, LATENTWIRE, MEASURED),
        Case(network, LATENTWIRE, "bfloat16"),
        Case(network, LATENTWIRE),
        Case(network, LATENTWIRE, options={"rewrites": False}, name=f"{LATENTWIRE} float32, no rewrites"),
    ]


def operations(network: Network, operation: str, height: int, width: int) -> int:
    """Map a network and the size of an image to the floating-point operations of one image.

    Convolutions, linear layers and attention count, each multiplication and each addition as one, in the network as
    diffusers runs it. Height and width, in pixels, are multiples of the network's factor.
    """
    module = network.empty()
    images = torch.empty(1, 3, height, width, device="meta")
    with torch.inference_mode():
        answer = module.encode(images)
        latents = answer.latents if hasattr(answer, "latents") else answer.latent_dist.mean
        with FlopCounterMode(display=False) as counter:
            if operation == "encode":
                module.encode(images)
            else:
                module.decode(latents)
    return int(counter.get_total_flops())


class MatrixProduct:
    """The product of two large square matrices on all threads: the rate that bounds every network.

    `side` is the side of the matrices; None: large enough for the device.
    """

    def __init__(self, placement: Placement, side: int | None = None) -> None:
        self._device = placement.device
        self._side = side or MATRIX_SIDES.get(placement.device.type, MATRIX_SIDES["cpu"])
        matrices = torch.randn(2, self._side, self._side, generator=torch.Generator().manual_seed(0))
        self._one, self._other = matrices.to(placement.device, placement.dtype)

    @property
    def operations(self) -> int:
        """Return the floating-point operations of one product."""
        return 2 * self._side**3

    def run(self) -> None:
        """Compute the product once, and wait for it."""
        torch.mm(self._one, self._other)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def matrix_products(device: str, forced: bool = False) -> dict[str, MatrixProduct]:
    """Map a device to its products in float32, and in bfloat16 where the device has instructions for it or `forced`."""
    placements = {dtype: Placement.choose(device, dtype) for dtype in ("float32", "bfloat16")}
    return {dtype: MatrixProduct(p) for dtype, p in placements.items() if forced or not p.is_emulated}
