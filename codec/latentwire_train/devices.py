# SPDX-License-Identifier: Apache-2.0
"""The way a process was started -> its device, and the steps that it takes together with other processes.

Several processes are started with `accelerate launch`, and share each batch between them.
"""

import os
from typing import cast

import torch
from torch import Tensor, nn

from latentwire_codec.runtime.placement import Placement
from latentwire_core.errors import ModelError


class Devices:
    """A process that trains alone.

    Args:
        name: `auto`, or a torch device such as `cuda:1`.

    Raises:
        ModelError: the device is not available.
    """

    rank = 0
    ranks = 1

    def __init__(self, name: str) -> None:
        self.device = Placement.choose(name, "float32").device

    def share(self, module: nn.Module) -> nn.Module:
        """Map a module to one whose gradients are the mean over all processes after `backward`."""
        return module

    def mean(self, values: Tensor) -> Tensor:
        """Map a tensor of this process to the mean over all processes."""
        return values

    def wait(self) -> None:
        """Wait until every process is here."""


class ManyDevices(Devices):
    """One of several processes that train together, each on a device of its own.

    Args:
        ranks: the number of processes.

    Raises:
        ModelError: `accelerate` sees another number of processes.
    """

    def __init__(self, ranks: int) -> None:
        from accelerate import Accelerator

        self._accelerator = Accelerator()
        if self._accelerator.num_processes != ranks:
            raise ModelError(
                f"WORLD_SIZE is {ranks}, and accelerate sees {self._accelerator.num_processes} processes; set "
                "ACCELERATE_USE_CPU=1 to train on CPUs, or start with `accelerate launch`"
            )
        self.device = self._accelerator.device
        self.rank, self.ranks = self._accelerator.process_index, self._accelerator.num_processes

    def share(self, module: nn.Module) -> nn.Module:
        """Map a module to one whose gradients are the mean over all processes after `backward`."""
        return cast(nn.Module, self._accelerator.prepare_model(module))

    def mean(self, values: Tensor) -> Tensor:
        """Map a tensor of this process to the mean over all processes."""
        return cast(Tensor, self._accelerator.reduce(values, reduction="mean"))

    def wait(self) -> None:
        """Wait until every process is here."""
        self._accelerator.wait_for_everyone()


def find_devices(name: str) -> Devices:
    """Map the configured device to this process's; one of several processes gets its own, whatever is configured.

    Raises:
        ModelError: the device is not available, or the processes do not see each other.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    return ManyDevices(ranks) if ranks > 1 else Devices(name)


def draw_on(device: torch.device, key: int) -> torch.Generator:
    """Map a device and a key, 0 <= key < 2**63, to a generator on the device that starts from the key."""
    return torch.Generator(device).manual_seed(key)
