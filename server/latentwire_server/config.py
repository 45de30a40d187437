# SPDX-License-Identifier: Apache-2.0
"""What an operator can set, checked when it is built."""

from dataclasses import dataclass, field
from pathlib import Path

from latentwire_codec.images import ImageLimits
from latentwire_server.errors import ServerError

MIB = 2**20


@dataclass(frozen=True)
class ModelSource:
    """A model to serve.

    Attributes:
        name: what clients ask for.
        source: a bundled name, a diffusers folder, or a hub id in the local cache.
    """

    name: str
    source: str

    @classmethod
    def parse(cls, text: str) -> "ModelSource":
        """Map `[NAME=]SOURCE` to a model; without a name it is the source's last path component."""
        name, separator, source = text.partition("=")
        if not separator:
            name, source = Path(text).resolve().name, text
        if not name or not source:
            raise ServerError(f"--model {text!r} is not of the form [NAME=]SOURCE")
        return cls(name, source)


@dataclass(frozen=True)
class ServerConfig:
    """The configuration of one server.

    Attributes:
        models: at least one; the first is the default.
        host: address to listen on.
        port: 0 takes a free one.
        metrics_port: where Prometheus metrics are served over HTTP; None: nowhere, 0 takes a free one.
        device: `auto`, `cpu`, `cuda:0` ...
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        max_delay_ms: how long a batch may wait for more images; None: 0 on a CPU, 5 on a GPU.
        max_batch_pixels: pixels of the images that share a batch; a larger image goes alone.
        max_batch: images in one request.
        max_queue: images waiting or at work, of all clients.
        max_message_mib: MiB of one message, either way; an image may have a third as many pixels as this has bytes.
        max_side: pixels along each side of an image.
        stream_window: items of one stream in flight.
        drain_timeout_s: how long accepted requests may take after SIGTERM.
        token: what clients must send; None: no token is asked for.
        tls_cert: PEM file of the certificate chain; with tls_key, the server speaks TLS.
        tls_key: PEM file of the private key.

    Raises:
        ServerError: a value is out of range, or two contradict each other.
    """

    models: tuple[ModelSource, ...] = (ModelSource("f8c4", "f8c4"),)
    host: str = "127.0.0.1"
    port: int = 50051
    metrics_port: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    max_delay_ms: float | None = None
    max_batch_pixels: int = 16 * 512 * 512
    max_batch: int = 64
    max_queue: int = 256
    max_message_mib: int = 64
    max_side: int = 8192
    stream_window: int = 16
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
            ("--port", self.port, 0, 65535),
            ("--metrics-port", self.metrics_port or 0, 0, 65535),
            ("--max-delay-ms", self.max_delay_ms or 0.0, 0, 10_000),
            ("--max-batch-pixels", self.max_batch_pixels, 1, 2**40),
            ("--max-batch", self.max_batch, 1, 65_536),
            ("--max-queue", self.max_queue, 1, 2**20),
            ("--max-message-mib", self.max_message_mib, 1, 2047),  # protobuf's own limit is 2 GiB
            ("--max-side", self.max_side, 8, 2**20 - 1),
            ("--stream-window", self.stream_window, 1, 4096),
            ("--drain-timeout-s", self.drain_timeout_s, 0, 86_400),
        ):
            if not least <= value <= most:
                raise ServerError(f"{flag} is {value}; it must be in {least}..{most}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ServerError("--tls-cert and --tls-key are needed together")
        if self.token is not None and not self.token:
            raise ServerError("the token is empty; leave it out to serve without one")

    @property
    def max_message_bytes(self) -> int:
        """The bytes of one message."""
        return self.max_message_mib * MIB

    @property
    def image_limits(self) -> ImageLimits:
        """The size of one image: its uint8 pixels fit into one message."""
        return ImageLimits(max_side=self.max_side, max_pixels=self.max_message_bytes // 3)
