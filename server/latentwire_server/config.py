# SPDX-License-Identifier: Apache-2.0
"""What an operator can set, checked when it is built."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from latentwire_codec.images.files import ImageLimits
from latentwire_core.formats import model_name
from latentwire_server.errors import ServerError

MIB = 2**20
MOST_ITERATIONS = 1_000_000
LAST_PORT = 65535


@dataclass(frozen=True)
class ModelSource:
    """A model to serve.

    Attributes:
        name: what clients ask for; only names that the operator gave are ever looked up.
        source: a bundled name, a diffusers folder, a checkpoint file, or a hub id in the local cache.
        scale: scaled = (raw - shift) * scale, 1 or C numbers; None: as the source says.
        shift: likewise.
        latent_space: the name of its latents' space; None: as the source says.

    Raises:
        ServerError: a scale or a shift is no number that can be used.
    """

    name: str
    source: str
    scale: tuple[float, ...] | None = None
    shift: tuple[float, ...] | None = None
    latent_space: str | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        for flag, numbers in (("--scale", self.scale), ("--shift", self.shift)):
            if numbers is not None and not (numbers and all(map(math.isfinite, numbers))):
                raise ServerError(f"{flag} of {self.name} is {_joined(numbers)}; finite numbers are needed")
        if self.scale is not None and 0 in self.scale:
            raise ServerError(f"--scale of {self.name} is {_joined(self.scale)}; a scaling by 0 cannot be undone")

    @classmethod
    def parse(cls, text: str) -> "ModelSource":
        """Map `[NAME=]SOURCE` to a model; without a name it is the source's last path component, without its suffix.

        What holds a `/` is no name: `/runs/lr=1e-4/vae` is a source alone.
        """
        name, separator, source = text.partition("=")
        if not separator or "/" in name:
            name, source = model_name(text), text
        if not name or not source:
            raise ServerError(f"--model {text!r} is not of the form [NAME=]SOURCE")
        return cls(name, source)


def with_options(models: Sequence[ModelSource], options: Mapping[str, Sequence[str]]) -> tuple[ModelSource, ...]:
    """Map models and what is said of them to models that know it.

    Args:
        models: at least one.
        options: attribute of a ModelSource -> texts of the form `[NAME=]VALUE`; without a name it is the only model's.

    Raises:
        ServerError: a text names no model, or none of several; is a second one for the same; is no number.
    """
    names = [model.name for model in models]
    told: dict[str, dict[str, Any]] = {name: {} for name in names}
    for option, texts in options.items():
        flag = f"--{option.replace('_', '-')}"
        for text in texts:
            name, separator, value = text.rpartition("=")
            if not separator:
                if len(models) > 1:
                    raise ServerError(f"{flag} {text} is for which of {', '.join(names)}? Write {flag} NAME={text}")
                name = names[0]
            if name not in told:
                raise ServerError(f"{flag} {text}: there is no model {name!r}; there is {', '.join(names)}")
            if option in told[name]:
                raise ServerError(f"{flag} is given twice for {name}")
            told[name][option] = value if option == "latent_space" else _numbers(flag, value)
    return tuple(replace(model, **told[model.name]) for model in models)


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise ServerError(f"{flag} is {text!r}; one number, or one for each channel with commas, is needed") from error


def _joined(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


@dataclass(frozen=True)
class ServerConfig:
    """The configuration of one server.

    Attributes:
        models: at least one; the first is the default.
        model_memory_mib: MiB of the weights in memory, of all models together; None: no limit, all stay loaded.
        activation_memory_mib: MiB of the activations that one batch may take; larger images are computed in strips;
            None: half of the device's memory.
        rewrites: whether a CPU computes with less arithmetic, where it knows the class; equal within rounding.
        allow_pickle: whether a diffusers folder's `.bin` weights are taken, as tensors and nothing else.
        host: address to listen on.
        port: 0 takes a free one.
        http_port: where clients of diffusers' remote VAE functions are served over HTTP; None: nowhere, 0 takes a free
            one.
        oip: whether clients of the Open Inference Protocol, such as tritonclient, are answered on `port` too; it opens
            no port of its own, asks for the same token and keeps the same limits, so it is on unless switched off.
        metrics_port: where Prometheus metrics are served over HTTP; None: nowhere, 0 takes a free one.
        device: `auto`, `cpu`, `cuda:0` ...; several with commas between them: one worker for each.
        workers: processes that share the port; each has the models, the queue and the limits for itself.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        max_delay_ms: how long a batch may wait for more images; None: 0 on a CPU, 5 on a GPU.
        max_batch_pixels: pixels of the images that share a batch; a larger image goes alone.
        max_batch: images in one request.
        max_queue: images waiting or at work, of all clients.
        max_message_mib: MiB of one message, either way; an image may have a third as many pixels as this has bytes.
        max_side: pixels along each side of an image.
        stream_window: items of one stream in flight.
        max_refinement: iterations by which latents are fitted to one image; 0: none.
        drain_timeout_s: how long accepted requests may take after SIGTERM.
        token: what clients must send; None: no token is asked for.
        tls_cert: PEM file of the certificate chain; with tls_key, the server speaks TLS.
        tls_key: PEM file of the private key.

    Raises:
        ServerError: a value is out of range, or two contradict each other.
    """

    models: tuple[ModelSource, ...] = (ModelSource("f8c4", "f8c4"),)
    model_memory_mib: int | None = None
    activation_memory_mib: int | None = None
    allow_pickle: bool = False
    rewrites: bool = True
    host: str = "127.0.0.1"
    port: int = 50051
    http_port: int | None = None
    oip: bool = True
    metrics_port: int | None = None
    device: str = "auto"
    workers: int = 1
    dtype: str = "auto"
    max_delay_ms: float | None = None
    max_batch_pixels: int = 16 * 512 * 512
    max_batch: int = 64
    max_queue: int = 256
    max_message_mib: int = 64
    max_side: int = 8192
    stream_window: int = 16
    max_refinement: int = 100
    drain_timeout_s: float = 60.0
    token: str | None = field(default=None, repr=False)
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        names = [model.name for model in self.models]
        if not names:
            raise ServerError("no model to serve; give at least one --model")
        if len(set(names)) < len(names):
            raise ServerError(f"two models share a name in {', '.join(names)}; name them with --model NAME=SOURCE")
        for flag, value, least, most in (
            ("--model-memory", 1 if self.model_memory_mib is None else self.model_memory_mib, 1, 2**24),
            ("--activation-memory", 1 if self.activation_memory_mib is None else self.activation_memory_mib, 1, 2**24),
            ("--workers", self.workers, 1, 1024),
            ("--port", self.port, 0, LAST_PORT),
            ("--http-port", self.http_port or 0, 0, LAST_PORT),
            ("--metrics-port", self.metrics_port or 0, 0, LAST_PORT),
            ("--max-delay-ms", self.max_delay_ms or 0.0, 0, 10_000),
            ("--max-batch-pixels", self.max_batch_pixels, 1, 2**40),
            ("--max-batch", self.max_batch, 1, 65_536),
            ("--max-queue", self.max_queue, 1, 2**20),
            ("--max-message-mib", self.max_message_mib, 1, 2047),  # protobuf's own limit is 2 GiB
            ("--max-side", self.max_side, 8, 2**20 - 1),
            ("--stream-window", self.stream_window, 1, 4096),
            ("--max-refinement", self.max_refinement, 0, MOST_ITERATIONS),
            ("--drain-timeout-s", self.drain_timeout_s, 0, 86_400),
        ):
            if not least <= value <= most:
                raise ServerError(f"{flag} is {value}; it must be in {least}..{most}")
        self._check_workers()
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ServerError("--tls-cert and --tls-key are needed together")
        if self.token is not None and not self.token:
            raise ServerError("the token is empty; leave it out to serve without one")
        # What a header can hold: no client could send another.
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise ServerError("the token has a character other than printable ASCII; is there a line break at its end?")
        if self.token is not None and self.token != self.token.strip():
            raise ServerError("the token begins or ends with a space, which HTTP drops on the way; leave it out")

    @property
    def worker_devices(self) -> tuple[str, ...]:
        """The device of each worker: those of the list, or the only one for each of `workers`."""
        devices = tuple(name.strip() for name in self.device.split(","))
        return devices if len(devices) > 1 else devices * self.workers

    @property
    def model_memory_bytes(self) -> int | None:
        """The bytes that the weights in memory may take; None: any number."""
        return None if self.model_memory_mib is None else self.model_memory_mib * MIB

    @property
    def max_message_bytes(self) -> int:
        """The bytes of one message."""
        return self.max_message_mib * MIB

    @property
    def image_limits(self) -> ImageLimits:
        """The size of one image: its uint8 pixels fit into one message."""
        return ImageLimits(max_side=self.max_side, max_pixels=self.max_message_bytes // 3)

    def _check_workers(self) -> None:
        devices = self.worker_devices
        if "" in devices:
            raise ServerError(f"--device is {self.device!r}; write a name, or several as in cuda:0,cuda:1")
        if "," in self.device:
            if self.workers > 1:
                raise ServerError(
                    f"--workers is {self.workers}, and --device names {len(devices)} devices, with a worker for each; "
                    "leave --workers out, or name one device"
                )
            if twice := [name for name in devices if devices.count(name) > 1]:
                raise ServerError(
                    f"--device names {twice[0]} twice; name each device once, or that one alone with --workers "
                    f"{devices.count(twice[0])}"
                )
        if self.metrics_port and self.metrics_port + len(devices) - 1 > LAST_PORT:
            raise ServerError(
                f"--metrics-port is {self.metrics_port}; {len(devices)} workers need as many ports from there on, and "
                f"{LAST_PORT} is the last"
            )
