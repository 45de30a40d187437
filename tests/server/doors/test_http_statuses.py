# SPDX-License-Identifier: Apache-2.0
"""Every status of the one table has an HTTP status that was decided on purpose."""

import grpc
import pytest

from latentwire_core import errors as codec
from latentwire_server import errors
from latentwire_server.errors import HTTP_STATUSES, STATUS_TABLE, http_status


def test_every_status_of_the_table_has_an_http_status() -> None:
    assert {code for _, code in STATUS_TABLE} <= set(HTTP_STATUSES)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidRequest("dtype", "text"), 400),
        (codec.TensorError("text"), 400),
        (codec.NonFiniteError("text"), 400),
        (codec.ImageError("text"), 400),
        (codec.LatentSpaceMismatch("text"), 400),
        (codec.ChecksumMismatch("text"), 400),
        (errors.Unauthenticated("text"), 401),
        (codec.UnknownModel("text"), 404),
        (errors.SlowSender("text"), 408),
        (errors.RequestTooLarge("text"), 413),
        (codec.ImageTooLarge("text"), 413),
        (codec.TensorTooLarge("text"), 413),
        (errors.QueueFull("text", retry_after_s=1.5), 429),
        (codec.CheckpointError("text"), 500),
        (ValueError("text"), 500),
        (errors.NotServing("text"), 503),
        (errors.DeadlineExceeded("text"), 504),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_exception_has_its_decided_http_status(error: Exception, status: int) -> None:
    assert http_status(error) == status


def test_only_what_another_try_may_change_has_a_status_that_says_so() -> None:
    worth_retrying = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert {code for code, status in HTTP_STATUSES.items() if status > 500} == worth_retrying
    assert 429 not in HTTP_STATUSES.values()
