# SPDX-License-Identifier: Apache-2.0
"""Tensors -> calls of one served model -> tensors: split to its limits, repeated while it restarts, checked."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypedDict, TypeVar, Unpack

import grpc
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentwire_client.client import Client
from latentwire_client.config import Limits, Retry, Timeout
from latentwire_client.errors import Cancelled, LatentSpaceMismatch, UnknownModel, WeightsChanged
from latentwire_client.info import Execution, ModelInfo, OnExecution, ServerInfo
from latentwire_core.kinds import LatentKind
from latentwire_core.latents import Latents

# Pipelines of these classes read the VAE's batch normalisation, or give it latents (B, C, frames, h, w).
WANT_MORE = ("AutoencoderKLFlux2", "AutoencoderKLQwenImage", "AutoencoderKLWan")
# Bytes of a message beside its tensors, generously.
MESSAGE_OVERHEAD = 4096
HALVES = {torch.float16: "float16", torch.bfloat16: "bfloat16"}

Floats = npt.NDArray[np.floating]
R = TypeVar("R")


class ClientOptions(TypedDict, total=False):
    """The keyword arguments of `connect` that concern the connection; all are optional, see `Client`.

    timeout: how long to wait for one call.
    retry: the retry policy. While the server restarts or its queue is full, a call is tried again for `reconnect_s`
        seconds, so that a generation is not lost.
    limits: the largest size of a message.
    token: the server's token; default `$LATENTWIRE_TOKEN`.
    tls: True, or the path of a PEM file with the root certificates to trust.
    on_execution: called with each `Execution`: the server's times for a call.
    """

    timeout: Timeout
    retry: Retry
    limits: Limits
    token: str | None
    tls: bool | str | os.PathLike[str]
    on_execution: OnExecution | None


class ServedModel:
    """One model of a server: images (B,3,H,W) -> moments (B,2C,h,w), raw latents (B,C,h,w) -> images (B,3,H,W).

    Thread-safe. It is pickled and copied without its connection; each process makes its own when it first needs it.

    Args:
        target: HOST:PORT; default `$LATENTWIRE_SERVER`, else localhost:50051.
        model: a served name; empty: the server's default, which then stays.
        allow_changed_weights: whether the server may go on with other weights of the same latent space.
        options: see `ClientOptions`.

    Attributes:
        info: the server's description of the model when this connected.
        tls: the option as it was given.

    Raises:
        UnknownModel: the server has no model of that name.
        ValueError: the model has no spatial latents, or its pipelines use it for more than encode and decode.
        LatentwireError: the server cannot be asked.
    """

    def __init__(
        self, target: str | None, model: str, allow_changed_weights: bool, **options: Unpack[ClientOptions]
    ) -> None:
        self._on_execution = options.get("on_execution")
        options["on_execution"] = self._executed
        # A restart, or a full queue, would cost a whole generation: every call waits for either.
        retry = options.get("retry", Retry())
        full_queue_s = max(retry.full_queue_s, retry.reconnect_s)
        options["retry"] = replace(retry, full_queue_s=full_queue_s, calls_reconnect=True)
        self._client = Client(target, **options)
        self._allow_changed_weights = allow_changed_weights
        self.tls = options.get("tls", False)
        server = self._client.info()
        self.info = find_model(server, model, self.target)
        if self.info.class_name in WANT_MORE:
            raise ValueError(
                f"{self.info.name!r} on {self.target} is of {self.info.class_name}, whose pipelines use their VAE for "
                "more than encode and decode; use Client, or the functions of diffusers with `serve --http-port`"
            )
        self._max_images = server.limits.max_batch_images
        ours = options.get("limits", Limits()).max_message_bytes
        self._max_bytes = min(server.limits.max_message_bytes, ours) - MESSAGE_OVERHEAD

    @property
    def target(self) -> str:
        """The server's address."""
        return self._client.target

    def encode(self, images: Tensor, *, singly: bool = False) -> tuple[Tensor, Tensor | None]:
        """Map images to the moments of their latents.

        Args:
            images: float (B,3,H,W) in [-1,1] on any device; H and W multiples of f. float16 travels as it is, other
                dtypes as float32.
            singly: one request for each image.

        Returns:
            mean and logvar, each float32 (B,C,H/f,W/f) on the CPU; logvar is None for a VAE without one.

        Raises:
            ValueError: the shape is wrong.
            LatentwireError: see `errors`.
        """
        array = _to_array(images, "images (B, 3, H, W)")
        places = array[0, 0].size // self.info.downsample_factor**2
        moments_bytes = 2 * self.info.latent_channels * places * np.dtype(np.float32).itemsize
        parts = [self._complete(self._encode, part) for part in self._split(array, moments_bytes, singly)]
        means = torch.cat([torch.from_numpy(part.values) for part in parts])
        if not self.info.has_logvar:
            return means, None
        return means, torch.cat([torch.from_numpy(part.logvar) for part in parts])

    def decode(self, latents: Tensor, dtype: torch.dtype, *, singly: bool = False) -> Tensor:
        """Map raw latents to images.

        Args:
            latents: float (B,C,h,w) on any device. float16 travels as it is, other dtypes as float32.
            dtype: the dtype of the answer; float16 and bfloat16 travel as such.
            singly: one request for each image.

        Returns:
            (B,3,h*f,w*f) on the CPU, about [-1,1] and not clamped; float16 or float32.

        Raises:
            ValueError: the shape is wrong.
            LatentwireError: see `errors`.
        """
        array = _to_array(latents, "latents (B, C, h, w)")
        wire_dtype = dtype if dtype in HALVES else torch.float32
        image_bytes = 3 * array[0, 0].size * self.info.downsample_factor**2 * wire_dtype.itemsize
        decode = partial(self._decode, dtype=HALVES.get(wire_dtype, "float32"))
        parts = [self._complete(decode, part) for part in self._split(array, image_bytes, singly)]
        return torch.cat([torch.from_numpy(part) for part in parts])

    def check_origin(self, latent_space: str, weights_digest: str) -> None:
        """Raise LatentSpaceMismatch for another latent space, WeightsChanged for other weights that are not allowed."""
        if latent_space != self.info.latent_space:
            raise LatentSpaceMismatch(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the latent space of {self.info.name!r} on {self.target} has changed: {latent_space or 'unnamed'!r} "
                f"is not {self.info.latent_space or 'unnamed'!r}; connect again, to the model that the pipeline needs",
            )
        self._check_weights(weights_digest)

    def close(self) -> None:
        """Close this process's channel; the next call makes another, and so does a call in flight."""
        self._client.close()

    def _encode(self, images: Floats) -> Latents:
        latents = self._client.encode(images, kind=LatentKind.MOMENTS, dtype="float32", model=self.info.name)
        self.check_origin(latents.latent_space, latents.weights_digest)
        return latents

    def _decode(self, values: Floats, dtype: str) -> Floats:
        latents = Latents(values=values, latent_space=self.info.latent_space)
        return self._client.decode_array(latents, dtype=dtype, model=self.info.name)

    def _split(self, array: Floats, answer_bytes: int, singly: bool) -> Iterator[Floats]:
        """Cut a batch so that each request and its answer keep to the limits; a single image is sent in any case."""
        fitting = self._max_bytes // max(array[0].nbytes, answer_bytes)
        step = 1 if singly else max(1, min(self._max_images, fitting))
        for start in range(0, len(array), step):
            yield array[start : start + step]

    def _complete(self, call: Callable[[Floats], R], part: Floats) -> R:
        """Carry out a call for a part of a batch; make it again whenever another thread closes the channel."""
        while True:
            try:
                return call(part)
            except Cancelled:
                continue

    def _executed(self, execution: Execution) -> None:
        if self._on_execution is not None:
            self._on_execution(execution)
        self._check_weights(execution.weights_digest)

    def _check_weights(self, weights_digest: str) -> None:
        if weights_digest != self.info.weights_digest and not self._allow_changed_weights:
            raise WeightsChanged(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the weights of {self.info.name!r} on {self.target} have changed: {weights_digest[:12]} is not "
                f"{self.info.weights_digest[:12]}; connect again, or pass allow_changed_weights=True",
            )


def find_model(server: ServerInfo, name: str, target: str) -> ModelInfo:
    """Return the served model of that name, else raise UnknownModel; for an empty name return the first model.

    A model whose latents are not spatial is a ValueError: no pipeline can use it.
    """
    names = [model.name for model in server.models]
    if name and name not in names:
        raise UnknownModel(
            grpc.StatusCode.NOT_FOUND, f"no model {name!r} is served at {target}; there is {', '.join(names)}"
        )
    model = server.models[names.index(name) if name else 0]
    if model.is_vector:
        raise ValueError(
            f"{model.name!r} on {target} maps an image to one vector; a pipeline needs spatial latents (B, C, h, w)"
        )
    return model


def _to_array(tensor: Tensor, wanted: str) -> Floats:
    if tensor.ndim != 4 or 0 in tensor.shape:
        raise ValueError(f"the shape is {tuple(tensor.shape)}; {wanted} are needed, each side at least 1")
    dtype = torch.float16 if tensor.dtype == torch.float16 else torch.float32
    array: Floats = tensor.detach().to("cpu", dtype).numpy()
    return array
