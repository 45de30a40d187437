# SPDX-License-Identifier: Apache-2.0
"""An assignment on standard input -> a server that shares its port with other processes: see `process.workers`."""

import os
import pickle
import sys

import torch

from latentwire_core.errors import CodecError
from latentwire_server import app
from latentwire_server.errors import ServerError
from latentwire_server.process.ports import Ports
from latentwire_server.process.workers import Assignment
from latentwire_server.telemetry.metrics import configure_logging


def main() -> int:
    """Serve until standard input ends, SIGTERM or SIGINT; return the exit status.

    The ports, or the exception that ended the start, go to standard output, pickled.
    """
    answer = os.fdopen(os.dup(1), "wb")
    # A library that prints must not write into the answer.
    os.dup2(2, 1)
    assignment: Assignment = pickle.load(sys.stdin.buffer)
    configure_logging(assignment.log_format, assignment.number)
    torch.set_num_threads(max(1, torch.get_num_threads() // assignment.workers))

    def tell(outcome: Ports | Exception) -> None:
        with answer:
            pickle.dump(outcome, answer)

    try:
        app.run(assignment.config, tell, lifeline=sys.stdin.fileno())
    except (ServerError, CodecError, OSError) as error:
        if answer.closed:
            raise
        tell(error)
        return 2
    return 0
