# SPDX-License-Identifier: Apache-2.0
"""A served model and its weights in memory, with the number of requests and batches that hold the weights."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_server.config import ModelSource


@dataclass(eq=False)
class Residency:
    """The time of one model's weights in memory, from their load to their eviction.

    Attributes:
        model: the model that has the weights.
        weights: the weights; None until they are loaded, and for good where the load fails.
        ready: set when the load has ended, well or not.
        holders: the number of requests that work with the weights or wait for them, and of batches on the device.
        idle: set while there is no holder.
    """

    model: "HostedModel"
    weights: Autoencoder | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    holders: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Count one more holder while the context lasts."""
        self.holders += 1
        self.idle.clear()
        try:
            yield
        finally:
            self.holders -= 1
            if not self.holders:
                self.idle.set()


@dataclass(eq=False)
class HostedModel:
    """A model that requests may name.

    Attributes:
        source: where the model comes from.
        spec: what the model is; known whether or not its weights are in memory.
        residency: the residency that requests join; None: the next request begins a load.
    """

    source: ModelSource
    spec: AutoencoderSpec
    residency: Residency | None = None

    @property
    def loaded(self) -> bool:
        """Whether a request finds the weights in memory."""
        return self.residency is not None and self.residency.weights is not None

    @property
    def weights_bytes(self) -> int:
        """The most memory that the weights take, on the device or on the host."""
        return self.spec.weights_bytes
