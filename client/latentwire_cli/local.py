# SPDX-License-Identifier: Apache-2.0
"""A model on this machine: what must be installed for it, and the names of models -> a server in this process."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from latentwire_cli.exit_status import Refusal

# What each extra brings and the code behind it imports.
EXTRAS = {
    "codec": ("torch", "diffusers", "constriction", "pytorch_msssim"),
    "plots": ("matplotlib",),
    "server": (
        "torch",
        "diffusers",
        "constriction",
        "grpc_reflection",
        "grpc_status",
        "prometheus_client",
        "pythonjsonlogger",
    ),
    "train": ("torch", "diffusers", "pytorch_msssim", "accelerate", "matplotlib", "tensorboard"),
}


def require(extra: str) -> None:
    """Check that an extra is installed, without importing it, and keep its libraries from chattering.

    Raises:
        Refusal: it is not.
    """
    if not all(find_spec(module) for module in EXTRAS[extra]):
        raise Refusal(f"this needs the {extra} extra: pip install 'latentwire[{extra}]'")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for variable in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
        os.environ.setdefault(variable, "error")


def served_name(model: str) -> str:
    """Map what `local_server` takes to the name that the model has there; an empty one to an empty one.

    Raises:
        ServerError: it is not of the form that is needed.
    """
    from latentwire_server.config import ModelSource

    return ModelSource.parse(model).name if model else ""


@contextmanager
def local_server(model: str) -> Iterator[str]:
    """Serve one model from a thread, on a free port of the loopback interface; yield the address.

    Raises:
        Refusal: the server extra is not installed.
        ModelError, ServerError: the model cannot be served.
    """
    require("server")
    from latentwire_server.app import background
    from latentwire_server.config import MOST_ITERATIONS, ModelSource, ServerConfig

    # It has no log here; its faults are printed all the same.
    logging.getLogger("latentwire").setLevel(logging.ERROR)
    models = (ModelSource.parse(model),) if model else ServerConfig.models
    # Interrupted, there is nobody left to finish the accepted requests for; nor does a refinement keep others waiting.
    config = ServerConfig(port=0, models=models, max_refinement=MOST_ITERATIONS, drain_timeout_s=0)
    with background(config) as server:
        yield f"127.0.0.1:{server.port}"
