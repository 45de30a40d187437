# SPDX-License-Identifier: Apache-2.0
"""The configuration of a server: models and options, checked when they are built. Needs no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentwire_core.formats import PAYLOAD_MODEL, model_name
from latentwire_server.errors import ServerError
from latentwire_server.options import Option, options_of, setting

if TYPE_CHECKING:
    from latentwire_codec.images.files import ImageLimits

MIB = 2**20
MOST_ITERATIONS = 1_000_000
LAST_PORT = 65535
MODELS, PROCESSES, NETWORK, BATCHES, LIMITS, ACCESS = "Models", "Processes", "Network", "Batches", "Limits", "Access"
AS_SAID = "as the checkpoint says"
LOG_FORMAT = Option(
    flag="--log-format",
    text="text, or json: one object a line; on standard error.",
    panel="Log",
    metavar="FORMAT",
    choices=("text", "json"),
    default="text",
)


@dataclass(frozen=True)
class ModelSource:
    """A model to serve.

    Attributes:
        name: the name in requests; only names that the operator gave are ever looked up.
        source: a bundled name, a diffusers folder, a checkpoint file, or a hub id in the local cache.
        scale: scaled = (raw - shift) * scale, 1 or C numbers; None: as the source says.
        shift: see scale.
        latent_space: the name of the model's latent space; None: as the source says.

    Raises:
        ServerError: a scale or a shift is not finite, or a scale is 0.
    """

    name: str
    source: str
    # fmt: off
    scale: tuple[float, ...] | None = setting(
        None, "--scale [NAME=]NUMBER[,...]", MODELS,
        "scaled = (raw - shift) * scale, one number or one for each channel; repeatable, the name may be left out "
        "where there is one model.", repeatable=True, default=AS_SAID)
    shift: tuple[float, ...] | None = setting(
        None, "--shift [NAME=]NUMBER[,...]", MODELS, "As --scale.", repeatable=True, default=AS_SAID)
    latent_space: str | None = setting(
        None, "--latent-space [NAME=]SPACE", MODELS,
        "What the latents are called, such as sd1 or sdxl: a known name also tells scale and shift, and latents of "
        "another space are refused.", repeatable=True, default=AS_SAID)
    # fmt: on

    def __post_init__(self) -> None:
        """Check the numbers."""
        for flag, numbers in (("--scale", self.scale), ("--shift", self.shift)):
            if numbers is not None and not (numbers and all(map(math.isfinite, numbers))):
                raise ServerError(f"{flag} of {self.name} is {_joined(numbers)}; finite numbers are needed")
        if self.scale is not None and 0 in self.scale:
            raise ServerError(f"--scale of {self.name} is {_joined(self.scale)}; a scaling by 0 cannot be undone")

    @classmethod
    def parse(cls, text: str) -> "ModelSource":
        """Map `[NAME=]SOURCE` to a model; the name's default is the source's last path component without its suffix.

        A name holds no `/`: `/runs/lr=1e-4/vae` is a source alone, and so is the name of a file or folder that exists,
        such as `epoch=3-step=1000.ckpt`.

        Raises:
            ServerError: the text is not of that form.
        """
        name, separator, source = text.partition("=")
        if not separator or "/" in name or Path(text).exists():
            name, source = model_name(text), text
        if not name or not source:
            raise ServerError(f"--model {text!r} is not of the form [NAME=]SOURCE")
        return cls(name, source)


def with_options(models: Sequence[ModelSource], options: Mapping[str, Sequence[str]]) -> tuple[ModelSource, ...]:
    """Map models, and the options that are given for them, to models that have these options.

    Args:
        models: at least one.
        options: attribute of a ModelSource -> texts of the form `[NAME=]VALUE`; a value without a name is for the only
            model.

    Raises:
        ServerError: a text names an unknown model, or no model where there are several; a model is given an option
            twice; a value is not a number.
    """
    names = [model.name for model in models]
    given: dict[str, dict[str, Any]] = {name: {} for name in names}
    for option, texts in options.items():
        flag = f"--{option.replace('_', '-')}"
        for text in texts:
            name, separator, value = text.rpartition("=")
            if not separator:
                if len(models) > 1:
                    raise ServerError(f"{flag} {text} is for which of {', '.join(names)}? Write {flag} NAME={text}")
                name = names[0]
            if name not in given:
                raise ServerError(f"{flag} {text}: there is no model {name!r}; there is {', '.join(names)}")
            if option in given[name]:
                raise ServerError(f"{flag} is given twice for {name}")
            given[name][option] = value if option == "latent_space" else _numbers(flag, value)
    return tuple(replace(model, **given[model.name]) for model in models)


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise ServerError(f"{flag} is {text!r}; one number, or one for each channel with commas, is needed") from error


def _joined(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The configuration of one server.

    The text of a field is its help. `latentwire serve` makes its flags and variables of the fields, and the
    documentation its table.

    Raises:
        ServerError: a value is out of its range, or two values contradict each other.
    """

    # fmt: off
    models: tuple[ModelSource, ...] = setting(
        (ModelSource("f8c4", "f8c4"), ModelSource(PAYLOAD_MODEL, PAYLOAD_MODEL)), "--model [NAME=]SOURCE", MODELS,
        "A bundled model, a diffusers folder, a checkpoint file, or a hub id in the local cache; repeatable, the first "
        f"is the default, but {PAYLOAD_MODEL}, where it is served, compresses (in the variable: separated by spaces).",
        repeatable=True, default=f"f8c4 {PAYLOAD_MODEL}")
    model_memory_mib: int | None = setting(
        None, "--model-memory MIB", MODELS,
        "MiB of weights in memory, {range}; models beyond it are loaded on request, and the least recently used "
        "one is unloaded.", (1, 2**24), default="no limit")
    activation_memory_mib: int | None = setting(
        None, "--activation-memory MIB", MODELS,
        "MiB of activations that one batch may take, {range}; larger images are computed in strips, with the same "
        "result.", (1, 2**24), default="half of the device's memory")
    allow_pickle: bool = setting(
        False, "--allow-pickle", MODELS, "Take .bin weights too; no code in them is ever run.")
    rewrites: bool = setting(
        True, "--rewrites/--no-rewrites", MODELS,
        "On a CPU, compute with less arithmetic where the class is known; without it, bit for bit as diffusers.")
    dtype: str = setting(
        "auto", "--dtype NAME", MODELS,
        "What the model computes in: float32, bfloat16, float16, or auto: on a CPU the fastest of what is within 50 dB "
        "of float32, measured at the first load on a machine and kept.",
        choices=("auto", "float32", "bfloat16", "float16"))
    device: str = setting(
        "auto", "--device NAME[,...]", PROCESSES,
        "cpu, cuda, cuda:1 ...; auto takes a GPU if there is one. A list, as in cuda:0,cuda:1, starts a worker for "
        "each of its devices.")
    workers: int = setting(
        1, "--workers N", PROCESSES,
        "Processes on one port, {range}; connections are spread over them. Each has the models, the queue and the "
        "limits for itself, and its share of the CPU's cores.", (1, 1024))
    host: str = setting(
        "127.0.0.1", "--host ADDRESS", NETWORK, "Address to listen on; 0.0.0.0 for every one.")
    port: int = setting(
        50051, "--port PORT", NETWORK, "The gRPC port, {range}; 0 takes a free one.", (0, LAST_PORT))
    http_port: int | None = setting(
        None, "--http-port PORT", NETWORK,
        "HTTP for diffusers' remote_decode and remote_encode, {range}; 0 takes a free one.", (0, LAST_PORT),
        default="off")
    # On unless switched off: it opens no port of its own, asks for the same token and keeps the same limits.
    oip: bool = setting(
        True, "--oip/--no-oip", NETWORK,
        "Answer clients of the Open Inference Protocol, such as tritonclient, on the same port.")
    metrics_port: int | None = setting(
        None, "--metrics-port PORT", NETWORK,
        "Prometheus metrics over HTTP, {range}; 0 takes a free one. Each further worker has the next port.",
        (0, LAST_PORT), default="off")
    metrics_host: str = setting(
        "127.0.0.1", "--metrics-host ADDRESS", NETWORK,
        "Address of the metrics; they ask for the token, and speak TLS where there is a certificate.")
    max_delay_ms: float | None = setting(
        None, "--max-delay-ms MS", BATCHES, "How long a batch waits for more images, {range} ms.", (0, 10_000),
        default="5 on a GPU, 0 on a CPU")
    max_batch_pixels: int = setting(
        16 * 512 * 512, "--max-batch-pixels PIXELS", BATCHES,
        "Pixels of the images that share a batch, {range}; a larger image goes alone.", (1, 2**40))
    max_batch: int = setting(
        64, "--max-batch IMAGES", LIMITS, "Images in one request, {range}.", (1, 65_536))
    max_queue: int = setting(
        256, "--max-queue IMAGES", LIMITS, "Images waiting or at work, of all clients, {range}.", (1, 2**20))
    max_message_mib: int = setting(
        64, "--max-message-mib MIB", LIMITS,
        "MiB of one message, either way, {range}; an image may have a third as many pixels as this has bytes.",
        (1, 2047))  # protobuf's own limit is 2 GiB
    max_side: int = setting(
        8192, "--max-side PIXELS", LIMITS, "Pixels along each side of an image, {range}.", (8, 2**20 - 1))
    max_connections: int = setting(
        400, "--max-connections N", LIMITS,
        "Connections that one port takes, {range}; further ones are closed. A connection takes a file descriptor.",
        (1, 2**20))  # the connections of two ports fit into the usual 1024 descriptors
    max_calls: int = setting(
        100, "--max-calls N", LIMITS,
        "Calls and streams at once on one gRPC connection, {range}; further ones wait in the client.", (1, 2**20))
    receive_timeout_s: float = setting(
        120.0, "--receive-timeout-s SECONDS", LIMITS,
        "How long the message of a call, or the body of an HTTP request, may take to arrive, {range} s.", (1, 86_400))
    stream_window: int = setting(
        16, "--stream-window ITEMS", LIMITS, "Items of one stream in flight, {range}.", (1, 4096))
    max_refinement: int = setting(
        100, "--max-refinement ITERATIONS", LIMITS,
        "Iterations by which latents may be fitted to an image (compress --refine), {range}; 0: no refinement.",
        (0, MOST_ITERATIONS))
    drain_timeout_s: float = setting(
        60.0, "--drain-timeout-s SECONDS", LIMITS, "How long accepted requests may take after SIGTERM, {range} s.",
        (0, 86_400))
    token: str | None = setting(
        None, "--token TEXT", ACCESS, "The token that clients must send; better given by its variable.", shown=False)
    tls_cert: Path | None = setting(
        None, "--tls-cert PATH", ACCESS, "Speak TLS with the certificate chain of this PEM file.")
    tls_key: Path | None = setting(
        None, "--tls-key PATH", ACCESS, "PEM file of the certificate's private key.")
    # fmt: on

    def __post_init__(self) -> None:
        """Check every value."""
        names = [model.name for model in self.models]
        if not names:
            raise ServerError("no model to serve; give at least one --model")
        if len(set(names)) < len(names):
            raise ServerError(f"two models share a name in {', '.join(names)}; name them with --model NAME=SOURCE")
        for name, option in options_of(ServerConfig):
            if getattr(self, name) is not None:
                option.check(getattr(self, name))
        self._check_workers()
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ServerError("--tls-cert and --tls-key are needed together")
        if self.token is not None and not self.token:
            raise ServerError("the token is empty; leave it out to serve without one")
        # A header holds nothing else: no client could send such a token.
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise ServerError("the token has a character other than printable ASCII; is there a line break at its end?")
        if self.token is not None and self.token != self.token.strip():
            raise ServerError("the token begins or ends with a space, which HTTP drops on the way; leave it out")

    @property
    def worker_devices(self) -> tuple[str, ...]:
        """The device of each worker: one of the list each, or the same one for all `workers`."""
        devices = tuple(name.strip() for name in self.device.split(","))
        return devices if len(devices) > 1 else devices * self.workers

    @property
    def model_memory_bytes(self) -> int | None:
        """The most bytes of weights in memory; None: no limit."""
        return None if self.model_memory_mib is None else self.model_memory_mib * MIB

    @property
    def max_message_bytes(self) -> int:
        """The most bytes of one message."""
        return self.max_message_mib * MIB

    @property
    def image_limits(self) -> "ImageLimits":
        """The size of one image: its uint8 pixels fit into one message."""
        from latentwire_codec.images.files import ImageLimits

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
