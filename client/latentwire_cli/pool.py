# SPDX-License-Identifier: Apache-2.0
"""Jobs and what a server shall do for each -> their answers, a few on their way at any time."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from latentwire_cli.files import Job
from latentwire_cli.patience import Patience
from latentwire_client.client import Client

T = TypeVar("T")

# Enough that the server reads, computes and writes at the same time.
IN_FLIGHT = 4


def answered(
    client: Client, patience: Patience, jobs: Iterable[Job], work: Callable[[Job], T]
) -> Generator[tuple[Job, Future[T]], None, None]:
    """Yield each job with what `work` makes of it or its failure, in order; to be closed where it is left early.

    Args:
        client: what `work` uses; it is closed at the end.
        patience: what `work` calls it with; it is ended likewise.
        jobs: what is to be done.
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
        patience.end()
        client.close()  # an early end takes the calls on their way along
        pool.shutdown(cancel_futures=True)
