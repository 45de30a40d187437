# SPDX-License-Identifier: Apache-2.0
"""`latentwire serve`: options -> a server, until SIGTERM.

The options are the table of the server's `ServerConfig`, which has the defaults and checks the values; only values that
are given here are passed on.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from inspect import Parameter
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

from latentwire_cli.local import require
from latentwire_cli.options import option, parameter, with_parameters
from latentwire_cli.report import print_line
from latentwire_server.config import LOG_FORMAT, ModelSource, ServerConfig, with_options
from latentwire_server.options import Option, options_of

if TYPE_CHECKING:
    from latentwire_server.process.ports import Ports

MODEL_OPTIONS = dict(options_of(ModelSource))


def serve_options() -> dict[str, Option]:
    """Return every option of `serve` by its name as a parameter, in the order of the help."""
    return {**dict(options_of(ServerConfig)), **MODEL_OPTIONS, "log_format": LOG_FORMAT}


def _parameters() -> Iterator[Parameter]:
    hints = get_type_hints(ServerConfig)
    for name, each in serve_options().items():
        if each.repeatable:
            kind: Any = list[str]
        elif each.choices:
            kind = Literal[each.choices]
        else:
            (kind,) = {*get_args(hints[name])} - {NoneType} or {hints[name]}
        shown = option(
            each.flag, text=each.help, default=each.default, panel=each.panel, metavar=each.metavar,
            envvar=each.variable,
        )  # fmt: skip
        yield parameter(name, Annotated[kind | None, shown])


def _with_its_options(command: Callable[..., int]) -> Callable[..., int]:
    return with_parameters(command, command, _parameters(), instead_of="values")


@_with_its_options
def serve(**values: Any) -> int:
    """Serve models until SIGTERM or Ctrl-C, which lets accepted requests finish.

    One line on standard output says when it is ready and where: `serving f8c4,f8c32 on 127.0.0.1:50051`.
    """
    given = {name: value for name, value in values.items() if value is not None}
    require("server")
    from latentwire_server.process.cores import prepare_threads

    prepare_threads()
    from latentwire_server.telemetry.metrics import configure_logging

    log_format = given.pop("log_format", LOG_FORMAT.default)
    sources = tuple(map(ModelSource.parse, given.pop("models", ()))) or ServerConfig.models
    models = with_options(sources, {name: given.pop(name, ()) for name in MODEL_OPTIONS})
    config = ServerConfig(models=models, **given)
    configure_logging(log_format)
    on_ready = partial(_say_ready, config)
    if len(config.worker_devices) > 1:
        from latentwire_server.process.workers import run_workers

        return run_workers(config, log_format, on_ready)
    from latentwire_server.app import run

    run(config, on_ready)
    return 0


def _say_ready(config: ServerConfig, ports: "Ports") -> None:
    from latentwire_server.process.ports import join

    names = ",".join(model.name for model in config.models)
    line = f"serving {names} on {join(config.host, ports.grpc)}"
    if ports.http:
        line += f", HTTP on {join(config.host, ports.http)}"
    if ports.metrics:
        line += f", metrics on {', '.join(join(config.metrics_host, port) for port in ports.metrics)}"
    try:
        print_line(line)
    except OSError:  # nobody reads it; requests come by the ports
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
