# SPDX-License-Identifier: Apache-2.0
"""Jobs, and a call for each -> their results in order, with a few calls in flight at any time."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from latentwire_cli.files import Job
from latentwire_cli.report import Batch
from latentwire_client.client import Client

T = TypeVar("T")

# Enough that the server reads, computes and writes at the same time.
IN_FLIGHT = 4


def run_in_flight(
    client: Client,
    what: str,
    jobs: Sequence[Job],
    work: Callable[[Client, Job], T],
    finish: Callable[[Job, T], None],
    resumable: bool = False,
) -> Batch:
    """Do the work of each job, a few at a time; finish the jobs in order; return their batch, for its report.

    Args:
        client: for `work`; it is closed at the end, which cancels the calls in flight.
        what: the name of the work, for the progress bar.
        jobs: an error of `work` or `finish` is listed as the failure of its job.
        work: called in threads.
        finish: called with a job and what `work` returned for it.
        resumable: whether the command has `--skip-existing`.
    """
    waiting: deque[tuple[Job, Future[T]]] = deque()
    pool = ThreadPoolExecutor(IN_FLIGHT)
    with Batch(what, len(jobs), resumable) as batch, batch.until_broken_off():

        def finish_oldest() -> None:
            job, answer = waiting.popleft()
            with batch.item(job.source):
                finish(job, answer.result())

        try:
            for job in jobs:
                waiting.append((job, pool.submit(work, client, job)))
                if len(waiting) == IN_FLIGHT:
                    finish_oldest()
            while waiting:
                finish_oldest()
        finally:
            client.close()
            pool.shutdown(cancel_futures=True)
    return batch
