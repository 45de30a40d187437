# SPDX-License-Identifier: Apache-2.0
"""A thread of the server -> the cores that torch computes with when that thread calls it.

OpenMP keeps a team of threads for every thread that has computed in parallel. Once the teams together are larger than
the machine, GNU's puts theirs to sleep after each loop instead of letting them wait for the next one, which takes the
model up to half of its speed. So the device's thread has all cores, and the others, whose work is small, one each.
"""

import threading

import torch

_lock = threading.Lock()


def use_cores(count: int) -> None:
    """Let torch compute with `count` threads, at least 1, where the calling thread calls it; others keep theirs."""
    with _lock:
        default = torch.get_num_threads()  # a thread's first call: it takes the default, once and for all
        torch.set_num_threads(count)
        # That has set the default of all threads to come, too; what sets it back has to be a thread that is not used.
        back = threading.Thread(target=torch.set_num_threads, args=(default,))
        back.start()
        back.join()
