# SPDX-License-Identifier: Apache-2.0
"""A Python function over arrays -> a compiled one, run on as many cores as torch computes with."""

import threading
from collections.abc import Callable
from typing import Any

import numba
import torch

from latentwire_codec.compiled import compiled as compile_function

Kernel = Callable[..., None]

# GNU's OpenMP is torch's own: both compute with one team of threads. TBB would start threads of its own, and warns
# about each fork of a process that has them.
numba.config.THREADING_LAYER_PRIORITY = ["omp", "workqueue", "tbb"]
# Not every threading layer of numba may be used by two threads at once.
_turn = threading.Lock()


def run(alone: Kernel, on_cores: Kernel, *arguments: object) -> None:
    """Compute with as many threads as torch: `on_cores` where there are several, `alone` where there is one."""
    cores = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    if cores == 1:  # as in a forked process, which must not start threads
        alone(*arguments)
        return
    with _turn:
        numba.set_num_threads(cores)
        on_cores(*arguments)


def compiled(function: Kernel, **options: Any) -> Kernel:
    """Compile a function at its first call; it may make arrays."""
    # A multiplication and an addition may be one instruction; sums keep their order, NaN and infinity their meaning.
    return compile_function(function, _nrt=True, fastmath={"contract"}, **options)
