# SPDX-License-Identifier: Apache-2.0
"""The number of cores that torch has in each of the server's threads."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from latentwire_server.engine.device import use_cores


def in_a_new_thread(work: Callable[[], int]) -> int:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


@pytest.fixture(autouse=True)
def three_by_default() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2])
def test_a_thread_s_cores_are_its_own(count: int) -> None:
    def confined() -> int:
        use_cores(count)
        torch.ones(1 << 20).add_(1)  # long enough to be computed in parallel
        return torch.get_num_threads()

    assert in_a_new_thread(confined) == count
    assert torch.get_num_threads() == 3
    assert in_a_new_thread(torch.get_num_threads) == 3


def test_threads_that_begin_at_once_leave_the_default_as_it_was() -> None:
    begin = threading.Barrier(8)

    def confined() -> int:
        begin.wait()
        use_cores(1)
        return torch.get_num_threads()

    with ThreadPoolExecutor(8) as pool:
        counts = [future.result() for future in [pool.submit(confined) for _ in range(8)]]
    assert counts == [1] * 8
    assert in_a_new_thread(torch.get_num_threads) == 3
