# SPDX-License-Identifier: Apache-2.0
"""A model on this machine -> a server in this process, if the extra that it needs is installed."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from latentwire_cli.exit_status import Refusal
from latentwire_core.extras import install_hint
from latentwire_server.config import MOST_ITERATIONS, ModelSource, ServerConfig

CODEC = ("torch", "diffusers", "isal", "numba")
# extra -> the packages that it installs and the code behind it imports
EXTRAS = {
    "codec": CODEC,
    "lab": ("isal", "matplotlib", "scipy", "sklearn"),
    "server": (*CODEC, "grpc_reflection", "grpc_status", "prometheus_client", "pythonjsonlogger"),
    "train": ("torch", "diffusers", "accelerate", "matplotlib", "pydantic", "tensorboard"),
}


def require(extra: str) -> None:
    """Raise Refusal where an extra is not installed, without importing it; silence the warnings of its libraries."""
    if not all(find_spec(module) for module in EXTRAS[extra]):
        raise Refusal(f"this needs the {extra} extra: {install_hint(extra)}")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for variable in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
        os.environ.setdefault(variable, "error")


def served_name(model: str) -> str:
    """Map the argument of `local_server` to the name that the model has there; an empty argument to an empty name.

    Raises:
        ServerError: the argument is not of the form [NAME=]SOURCE.
    """
    return ModelSource.parse(model).name if model else ""


@contextmanager
def local_server(model: str) -> Iterator[str]:
    """Serve a model from a thread, on a free port of the loopback interface; yield the address.

    An empty argument stands for the models that `serve` has by default.

    Raises:
        Refusal: the server extra is not installed.
        ModelError, ServerError: the model cannot be served.
    """
    require("server")
    from latentwire_server.app import background

    # Nobody reads the server's log here; errors are still printed.
    logging.getLogger("latentwire").setLevel(logging.ERROR)
    models = (ModelSource.parse(model),) if model else ServerConfig.models
    # In float32 a file is the same on every machine, and nothing has to be measured first. The server has one client:
    # after an interrupt no client waits for the accepted requests, and a long refinement delays no other client.
    config = ServerConfig(port=0, models=models, dtype="float32", max_refinement=MOST_ITERATIONS, drain_timeout_s=0)
    with background(config) as server:
        yield f"127.0.0.1:{server.port}"
