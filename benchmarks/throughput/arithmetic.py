# SPDX-License-Identifier: Apache-2.0
"""A network and a size -> its operations; a device and a dtype -> a product of matrices that shows its limit."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report.networks import Network
from latentwire_codec.runtime.placement import Placement

TERA = 1e12
MATRIX_SIDES = {"cpu": 2048, "cuda": 8192}


def operations(network: Network, operation: str, height: int, width: int) -> int:
    """Map a network and the size of an image to the floating-point operations of one image.

    Convolutions, linear layers and attention count, each multiplication and each addition as one, in the network as
    diffusers runs it.

    Args:
        network: the network.
        operation: `encode` or `decode`.
        height: height of the image, in pixels, a multiple of the network's factor.
        width: its width, likewise a multiple.
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

    Args:
        placement: device and dtype.
        side: side of the matrices; None: large enough for the device.
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
