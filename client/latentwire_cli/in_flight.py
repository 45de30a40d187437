# SPDX-License-Identifier: Apache-2.0
"""Jobs, and a call for each -> their answers in order, with a few calls in flight at any time."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from latentwire_cli.files import Job
from latentwire_client.client import Client

T = TypeVar("T")

# Enough that the server reads, computes and writes at the same time.
IN_FLIGHT = 4


def answered(
    client: Client, jobs: Iterable[Job], work: Callable[[Job], T]
) -> Generator[tuple[Job, Future[T]], None, None]:
    """Yield each job with the result of `work` or its failure, in order; to be closed where it is left early.

    Args:
        client: used by `work`; it is closed at the end, which cancels the calls in flight.
        jobs: the arguments of `work`.
        work: called in threads.
    """
    waiting: deque[tuple[Job, Future[T]]] = deque()
    pool = ThreadPoolExecutor(IN_FLIGHT)
    try:
        for job in jobs:
            waiting.append((job, pool.submit(work, job)))
            if len(waiting) == IN_FLIGHT:
                yield waiting.popleft()
        yield from waiting
    finally:
        client.close()
        pool.shutdown(cancel_futures=True)
