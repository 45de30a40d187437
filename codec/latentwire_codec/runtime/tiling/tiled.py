# SPDX-License-Identifier: Apache-2.0
"""A VAE's network on its device: batches of images <-> batches of latents, within the memory for activations.

On a CPU, classes that can be computed in strips always are in float32. Strips are faster, too: a strip stays in the
cache, and convolutions are rewritten with less arithmetic. In bfloat16 the copies around strips cost more than the
cache saves: there a network with room for it is computed whole.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor

from latentwire_codec.networks.calling import Calling
from latentwire_codec.runtime.tiling.footprint import Footprint, Half, held_bytes
from latentwire_codec.runtime.tiling.sweep import Sweep
from latentwire_core.errors import ImageTooLarge

MIB = 2**20
KLS = "AutoencoderKL", "AutoencoderKLFlux2"


@dataclass(frozen=True)
class Tiling:
    """How the networks of a VAE are run.

    Attributes:
        rewrites: whether a CPU computes them with less arithmetic, where the class is known; equal within rounding.
        budget_bytes: memory that the activations of one image may take; None: half of the device's memory.
    """

    rewrites: bool = True
    budget_bytes: int | None = None

    def budget(self, device: torch.device) -> int:
        """Return the bytes that activations may take on a device."""
        if self.budget_bytes is not None:
            return self.budget_bytes
        if device.type == "cuda":
            return int(torch.cuda.mem_get_info(device)[1]) // 2
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class Strips(Protocol):
    """A network that is computed strip by strip."""

    def encode(self, images: Tensor, sweep: Sweep) -> tuple[Tensor, ...]:
        """Map images (1,3,H,W) to mean and logvar."""

    def decode(self, latents: Tensor, sweep: Sweep) -> tuple[Tensor, ...]:
        """Map raw latents (1,C,h,w) to images."""


class Whole(Protocol):
    """A network that is computed in bfloat16, from float32 maps, a layer at a time."""

    def encode(self, images: Tensor, pause: Callable[[], None]) -> tuple[Tensor, ...]:
        """Map images (1,3,H,W) to mean and logvar."""

    def decode(self, latents: Tensor, pause: Callable[[], None]) -> tuple[Tensor, ...]:
        """Map raw latents (1,C,h,w) to images."""


class Tiled:
    """A network that stays within its memory.

    Computed in strips, the result is the same as computed at once, within rounding; see `feature_map`. The tiling of
    some other classes changes the result: it takes overlapping tiles for images and blends them. The module is at its
    device, in its dtype; `whole` is the same in bfloat16, or None. `weights_bytes` counts the weights, also in the
    forms that rewrites need.
    """

    def __init__(
        self, module: Any, whole: Whole | None, calling: Calling, tiling: Tiling, footprint: Footprint
    ) -> None:
        self._module, self._calling, self._footprint = module, calling, footprint
        parameter = next(module.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self._budget_bytes = tiling.budget(self._device)
        exact = self._dtype in (torch.float32, torch.float64)
        self._always = tiling.rewrites and exact and self._device.type == "cpu"
        self._whole = whole
        # The whole network keeps its weights in two forms.
        self.weights_bytes = held_bytes(module, self._strips if self._always else None) + 2 * held_bytes(whole)

    def run(self, half: Half, batch: Tensor, pause: Callable[[], None]) -> tuple[Tensor, ...]:
        """Map images (B,3,H,W) to mean and logvar, or to latents alone; raw latents (B,C,h,w) to images.

        The batch is on the device, in float32 where `runs_whole`, else in the dtype; `pause` is called between strips,
        or between layers.

        Raises:
            ImageTooLarge: the activations of one image don't fit, and its class cannot be tiled.
        """
        one_by_one: Callable[[Tensor], tuple[Tensor, ...]]
        if self.runs_whole(half, batch.shape):
            one_by_one = partial(getattr(self._whole, half), pause=pause)
        elif (self._always or not self._fits(half, batch.shape)) and self._strips is not None:
            sweep = Sweep(self._device, self._dtype, self._budget_bytes, pause)
            one_by_one = partial(getattr(self._strips, half), sweep=sweep)
        elif self._fits(half, batch.shape):
            return self.run_whole(half, batch)
        else:
            one_by_one = partial(self._in_tiles, half)
        outputs = [one_by_one(one) for one in batch.split(1)]
        return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))

    def run_whole(self, half: Half, batch: Tensor) -> tuple[Tensor, ...]:
        """Map a batch as `run` does, by the class's own arithmetic and at once, whatever memory it takes."""
        results: tuple[Tensor, ...] = getattr(self._calling, half)(self._module, batch)
        return results

    def runs_whole(self, half: Half, shape: Sequence[int]) -> bool:
        """Tell whether images, or latents, of a shape (B,C,H,W) are computed by the network's own form in bfloat16."""
        # It keeps some maps in float32.
        return self._whole is not None and 2 * self._bytes(half, (1, *shape[1:])) <= self._budget_bytes

    def approximates(self, half: Half, shape: Sequence[int]) -> bool:
        """Tell whether an image, or latents, of a shape (B,C,H,W) are computed by the class's own tiling."""
        return not self._fits(half, (1, *shape[1:])) and self._strips is None

    @property
    def rewrites(self) -> bool:
        """Whether it computes with less arithmetic, or in a form of its own in bfloat16, within the memory for that."""
        return self._whole is not None or (self._always and self._strips is not None)

    @cached_property
    def _strips(self) -> Strips | None:
        """The network as steps over strips; None where its class cannot be computed so."""
        name = type(self._module).__name__
        if name == "AutoencoderLatentVAE":
            from latentwire_codec.runtime.tiling.latent import LatentNetwork

            return LatentNetwork(self._module)
        if name in KLS:
            from latentwire_codec.runtime.tiling.kl import KLNetwork

            with suppress(NotImplementedError):
                return KLNetwork(self._module)
        return None

    def _fits(self, half: Half, shape: Sequence[int]) -> bool:
        return self._bytes(half, shape) <= self._budget_bytes

    def _bytes(self, half: Half, shape: Sequence[int]) -> float:
        for_each_place: float = getattr(self._footprint, half)
        places = shape[0] * shape[2] * shape[3]
        return for_each_place * places * int(self._dtype.itemsize)

    def _in_tiles(self, half: Half, one: Tensor) -> tuple[Tensor, ...]:
        if not self.approximates(half, one.shape):
            return self.run_whole(half, one)
        try:
            self._module.enable_tiling()
        except (AttributeError, NotImplementedError) as error:
            needed, limit = (round(number / MIB) for number in (self._bytes(half, one.shape), self._budget_bytes))
            raise ImageTooLarge(
                f"the {half} of {one.shape[3]}x{one.shape[2]} takes about {needed} MiB of activations; the limit is "
                f"{limit} MiB (serve --activation-memory), and a {type(self._module).__name__} cannot be tiled: send "
                "a smaller image, or raise the limit"
            ) from error
        try:
            return self.run_whole(half, one)
        finally:
            self._module.disable_tiling()
