# SPDX-License-Identifier: Apache-2.0
"""The way a process was started -> its device, and the other processes with which it shares each training step.

Several processes are started with `accelerate launch`, and share each batch between them.
"""

import os
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentwire_codec.runtime.placement import Placement
from latentwire_core.errors import ModelError


class Devices:
    """The device of this process, and the processes that train together: this one alone, or those of an accelerator.

    The name is `auto`, or a torch device such as `cuda:1`; accelerate's `Accelerator` gives each process its own.

    Raises:
        ModelError: the device is not available.
    """

    def __init__(self, name: str, accelerator: Any = None) -> None:
        self._accelerator = accelerator
        self.rank, self.ranks = 0, 1
        if accelerator is None:
            self.device = Placement.choose(name, "float32").device
        else:
            self.device = accelerator.device
            self.rank, self.ranks = accelerator.process_index, accelerator.num_processes

    def share(self, module: nn.Module) -> nn.Module:
        """Map a module to one whose gradients are the mean over all processes after `backward`."""
        return module if self._accelerator is None else cast(nn.Module, self._accelerator.prepare_model(module))

    def mean(self, values: Tensor) -> Tensor:
        """Map a tensor of this process to the mean over all processes."""
        return values if self._accelerator is None else cast(Tensor, self._accelerator.reduce(values, reduction="mean"))

    def wait(self) -> None:
        """Wait until every process is here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()


def find_devices(name: str) -> Devices:
    """Map the configured device to this process's; one of several processes gets its own, whatever is configured.

    Raises:
        ModelError: the device is not available, or `accelerate` sees another number of processes than was launched.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        return Devices(name)
    from accelerate import Accelerator

    accelerator = Accelerator()
    if accelerator.num_processes != ranks:
        raise ModelError(
            f"WORLD_SIZE is {ranks}, and accelerate sees {accelerator.num_processes} processes; set "
            "ACCELERATE_USE_CPU=1 to train on CPUs, or start with `accelerate launch`"
        )
    return Devices(name, accelerator)


def draw_on(device: torch.device, key: int) -> torch.Generator:
    """Map a device and a key, 0 <= key < 2**63, to a generator on the device that starts from the key."""
    return torch.Generator(device).manual_seed(key)
