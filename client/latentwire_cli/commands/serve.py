# SPDX-License-Identifier: Apache-2.0
"""`latentwire serve`: options -> a server, until SIGTERM.

The options are the fields of the server's `ServerConfig`, which checks them and has the defaults; only what is given
here is passed on.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from latentwire_cli.local import require
from latentwire_cli.options import NO_VALUE, option
from latentwire_cli.report import print_line

if TYPE_CHECKING:
    from latentwire_server.config import ServerConfig
    from latentwire_server.process.ports import Ports


def _option(flag: str, panel: str, metavar: str, text: str, default: str = "") -> Any:
    name = flag.partition("/")[0].removeprefix("--")
    variable = f"LATENTWIRE_{name.upper().replace('-', '_')}"
    return option(flag, text=text, default=default, panel=panel, metavar=metavar, envvar=variable)


MODELS, PROCESSES, NETWORK, BATCHES, LIMITS, ACCESS = "Models", "Processes", "Network", "Batches", "Limits", "Access"
# The models are made of several options, and the log is not the server's.
NO_FIELDS = ("models", "scale", "shift", "latent_space", "log_format")


def serve(
    *,
    models: Annotated[
        list[str] | None,
        _option(
            "--model",
            MODELS,
            "[NAME=]SOURCE",
            "A bundled model, a diffusers folder, a checkpoint file, or a hub id in the local cache; repeatable, the"
            " first is the default (in the variable: separated by spaces).",
            "f8c4",
        ),
    ] = None,
    model_memory_mib: Annotated[
        int | None,
        _option(
            "--model-memory",
            MODELS,
            "MIB",
            "MiB of weights in memory, 1..16777216; models beyond it are loaded when they are asked for, and the one"
            " used longest ago goes.",
            "no limit",
        ),
    ] = None,
    activation_memory_mib: Annotated[
        int | None,
        _option(
            "--activation-memory",
            MODELS,
            "MIB",
            "MiB of activations that one batch may take, 1..16777216; larger images are computed in strips, with the"
            " same result.",
            "half of the device's memory",
        ),
    ] = None,
    scale: Annotated[
        list[str] | None,
        _option(
            "--scale",
            MODELS,
            "[NAME=]NUMBER[,...]",
            "scaled = (raw - shift) * scale, one number or one for each channel; repeatable, the name may be left out"
            " where there is one model.",
            "as the checkpoint says",
        ),
    ] = None,
    shift: Annotated[
        list[str] | None,
        _option("--shift", MODELS, "[NAME=]NUMBER[,...]", "As --scale.", "as the checkpoint says"),
    ] = None,
    latent_space: Annotated[
        list[str] | None,
        _option(
            "--latent-space",
            MODELS,
            "[NAME=]SPACE",
            "What the latents are called, such as sd1 or sdxl: a known name also tells scale and shift, and latents of"
            " another space are refused.",
            "as the checkpoint says",
        ),
    ] = None,
    allow_pickle: Annotated[
        bool | None,
        _option("--allow-pickle", MODELS, NO_VALUE, "Take .bin weights too; no code in them is ever run.", "off"),
    ] = None,
    rewrites: Annotated[
        bool | None,
        _option(
            "--rewrites/--no-rewrites",
            MODELS,
            NO_VALUE,
            "On a CPU, compute with less arithmetic where the class is known; without it, bit for bit as diffusers.",
            "on",
        ),
    ] = None,
    device: Annotated[
        str | None,
        _option(
            "--device",
            PROCESSES,
            "NAME[,...]",
            "cpu, cuda, cuda:1 ...; auto takes a GPU if there is one. A list, as in cuda:0,cuda:1, starts a worker for"
            " each of its devices.",
            "auto",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        _option(
            "--workers",
            PROCESSES,
            "N",
            "Processes on one port, 1..1024; connections are spread over them. Each has the models, the queue and the"
            " limits for itself, and its share of the CPU's cores.",
            "1",
        ),
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"] | None,
        _option("--dtype", MODELS, "NAME", "What the model computes in: auto, float32, bfloat16 or float16.", "auto"),
    ] = None,
    host: Annotated[
        str | None, _option("--host", NETWORK, "ADDRESS", "Address to listen on; 0.0.0.0 for every one.", "127.0.0.1")
    ] = None,
    port: Annotated[int | None, _option("--port", NETWORK, "PORT", "0..65535; 0 takes a free one.", "50051")] = None,
    http_port: Annotated[
        int | None,
        _option(
            "--http-port",
            NETWORK,
            "PORT",
            "HTTP for diffusers' remote_decode and remote_encode, 0..65535; 0 takes a free one.",
            "off",
        ),
    ] = None,
    oip: Annotated[
        bool | None,
        _option(
            "--oip/--no-oip",
            NETWORK,
            NO_VALUE,
            "Answer clients of the Open Inference Protocol, such as tritonclient, on the same port.",
            "on",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        _option(
            "--metrics-port",
            NETWORK,
            "PORT",
            "Prometheus metrics over HTTP, 0..65535; 0 takes a free one. Of several workers, the next one's are on the"
            " next port.",
            "off",
        ),
    ] = None,
    max_delay_ms: Annotated[
        float | None,
        _option(
            "--max-delay-ms",
            BATCHES,
            "MS",
            "How long a batch waits for more images, 0..10000 ms.",
            "5 on a GPU, 0 on a CPU",
        ),
    ] = None,
    max_batch_pixels: Annotated[
        int | None,
        _option(
            "--max-batch-pixels",
            BATCHES,
            "PIXELS",
            "Pixels of the images that share a batch, from 1; a larger image goes alone.",
            "4194304",
        ),
    ] = None,
    max_batch: Annotated[
        int | None, _option("--max-batch", LIMITS, "IMAGES", "Images in one request, 1..65536.", "64")
    ] = None,
    max_queue: Annotated[
        int | None,
        _option("--max-queue", LIMITS, "IMAGES", "Images waiting or at work, of all clients, 1..1048576.", "256"),
    ] = None,
    max_message_mib: Annotated[
        int | None,
        _option(
            "--max-message-mib",
            LIMITS,
            "MIB",
            "MiB of one message, either way, 1..2047; an image may have a third as many pixels as this has bytes.",
            "64",
        ),
    ] = None,
    max_side: Annotated[
        int | None, _option("--max-side", LIMITS, "PIXELS", "Pixels along each side of an image, 8..1048575.", "8192")
    ] = None,
    stream_window: Annotated[
        int | None, _option("--stream-window", LIMITS, "ITEMS", "Items of one stream in flight, 1..4096.", "16")
    ] = None,
    max_refinement: Annotated[
        int | None,
        _option(
            "--max-refinement",
            LIMITS,
            "ITERATIONS",
            "Iterations by which latents may be fitted to an image (compress --refine), 0..1000000; 0 for none.",
            "100",
        ),
    ] = None,
    drain_timeout_s: Annotated[
        float | None,
        _option(
            "--drain-timeout-s",
            LIMITS,
            "SECONDS",
            "How long accepted requests may take after SIGTERM, 0..86400 s.",
            "60",
        ),
    ] = None,
    token: Annotated[
        str | None,
        _option("--token", ACCESS, "TEXT", "What clients must send; better given by its variable."),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        _option("--tls-cert", ACCESS, "PATH", "Speak TLS with the certificate chain of this PEM file."),
    ] = None,
    tls_key: Annotated[
        Path | None, _option("--tls-key", ACCESS, "PATH", "PEM file of the certificate's private key.")
    ] = None,
    log_format: Annotated[
        Literal["text", "json"],
        _option("--log-format", "Log", "FORMAT", "text, or json: one object a line; on standard error.", "text"),
    ] = "text",
) -> int:
    """Serve models until SIGTERM or Ctrl-C, which lets accepted requests finish.

    One line on standard output says when it is ready and where: `serving f8c4 on 127.0.0.1:50051`.
    """
    given = {key: value for key, value in locals().items() if value is not None and key not in NO_FIELDS}
    require("server")
    from latentwire_server.config import ModelSource, ServerConfig, with_options
    from latentwire_server.telemetry.metrics import configure_logging

    sources = tuple(map(ModelSource.parse, models)) if models else ServerConfig.models
    told = {"scale": scale or (), "shift": shift or (), "latent_space": latent_space or ()}
    config = ServerConfig(models=with_options(sources, told), **given)
    configure_logging(log_format)
    on_ready = partial(_say_ready, config)
    if len(config.worker_devices) > 1:
        from latentwire_server.process.workers import run_workers

        return run_workers(config, log_format, on_ready)
    from latentwire_server.app import run

    run(config, on_ready)
    return 0


def _say_ready(config: "ServerConfig", ports: "Ports") -> None:
    from latentwire_server.process.ports import join

    names = ",".join(model.name for model in config.models)
    line = f"serving {names} on {join(config.host, ports.grpc)}"
    if ports.http:
        line += f", HTTP on {join(config.host, ports.http)}"
    if ports.metrics:
        line += f", metrics on {', '.join(join(config.host, port) for port in ports.metrics)}"
    print_line(line)
