# SPDX-License-Identifier: Apache-2.0
"""A module and a trial run -> the elements in work at a time, from the size of its largest feature map."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from latentwire_codec.networks.calling import Calling

Half = Literal["encode", "decode"]

# Copies of its widest map that a network in eager mode holds at a time: input, normalised, activated.
MAPS = 3
RUNTIME = __package__.rpartition(".")[0]


@dataclass(frozen=True)
class Footprint:
    """Elements in work at a time for each place of the input, where a network is run at once.

    Attributes:
        encode: for each pixel of the image.
        decode: for each place of the latents.
    """

    encode: float
    decode: float

    @classmethod
    def of(cls, module: nn.Module, calling: Calling, images: Tensor) -> "Footprint":
        """Run both halves of a network on a small image (1,3,H,W)."""
        elements: list[int] = []

        def note(part: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                elements.append(output.numel())

        handles = [part.register_forward_hook(note) for part in module.modules()]
        try:
            with torch.inference_mode():
                latents = calling.encode(module, images)[0]
                encoding = max(elements, default=0)
                elements.clear()
                calling.decode(module, latents)
        finally:
            for handle in handles:
                handle.remove()
        return cls(MAPS * encoding / images[0, 0].numel(), MAPS * max(elements, default=0) / latents[0, 0].numel())


def held_bytes(*things: object) -> int:
    """Return the bytes of all tensors that modules and objects of the runtime hold, each tensor once."""
    storages: dict[int, int] = {}
    seen: set[int] = set()
    left = list(things)
    while left:
        thing = left.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
        elif isinstance(thing, nn.Module):
            left += [*thing.parameters(), *thing.buffers()]
        elif isinstance(thing, Mapping):
            left += thing.values()
        elif isinstance(thing, list | tuple):
            left += thing
        elif type(thing).__module__.startswith(RUNTIME):
            left.append(vars(thing))
    return sum(storages.values())
