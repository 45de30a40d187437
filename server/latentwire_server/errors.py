# SPDX-License-Identifier: Apache-2.0
"""Exceptions -> google.rpc.Status: the one table of statuses."""

import logging

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from latentwire_core import errors as codec

log = logging.getLogger("latentwire")

INTERNAL_TEXT = "internal error; the server's log has the details under the request id"
DOMAIN = "latentwire"
# Messages repeat what a client sent. A call's error travels in trailing metadata, twice, once percent-encoded. A peer
# refuses more than 8 KiB of metadata, and loses the status.
MAX_MESSAGE_BYTES = 800
MAX_FIELD_BYTES = 200


class ServerError(Exception):
    """The server cannot start as configured."""


class RequestError(Exception):
    """Base of the errors that the server itself, not the codec, finds in a request."""


class InvalidRequest(RequestError):
    """A field is missing, has an unknown value or contradicts another.

    Args:
        field: its path in the request, such as `latents.seeds`; a job names its own attribute, such as `seeds`.
        problem: the fault, the value, the limit and the remedy.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


class RequestTooLarge(RequestError):
    """The request, or its answer, is over a limit."""


class QueueFull(RequestError):
    """No place in the queue.

    Args:
        message: how many places are taken, of how many, and by whom.
        retry_after_s: the time in which places should be free, seconds.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(RequestError):
    """The deadline passed before the request reached the model."""


class SlowSender(RequestError):
    """The request was not there in time."""


class Unauthenticated(RequestError):
    """The token is missing or wrong."""


class NotServing(RequestError):
    """The server is warming up or draining."""


class ModelUnavailable(RequestError):
    """The weights of a served model cannot be loaded now."""


# Most specific first: the first row that the exception is an instance of decides.
STATUS_TABLE: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (RequestTooLarge, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (QueueFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
    (SlowSender, grpc.StatusCode.DEADLINE_EXCEEDED),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (NotServing, grpc.StatusCode.UNAVAILABLE),
    (ModelUnavailable, grpc.StatusCode.UNAVAILABLE),
    (codec.ImageTooLarge, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (codec.ImageError, grpc.StatusCode.INVALID_ARGUMENT),
    (codec.TensorTooLarge, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (codec.TensorError, grpc.StatusCode.INVALID_ARGUMENT),
    (codec.NonFiniteError, grpc.StatusCode.INVALID_ARGUMENT),
    (codec.UnknownModel, grpc.StatusCode.NOT_FOUND),
    (codec.LatentSpaceMismatch, grpc.StatusCode.FAILED_PRECONDITION),
    (codec.UnsupportedVersion, grpc.StatusCode.FAILED_PRECONDITION),
    (codec.ChecksumMismatch, grpc.StatusCode.DATA_LOSS),
    (codec.Truncated, grpc.StatusCode.INVALID_ARGUMENT),
    (codec.TrailingBytes, grpc.StatusCode.INVALID_ARGUMENT),
    (codec.Malformed, grpc.StatusCode.INVALID_ARGUMENT),
    # A checkpoint fails at the start, or as ModelUnavailable; a failure in a request is a fault of the server.
    (codec.CheckpointError, grpc.StatusCode.INTERNAL),
)

# For doors that speak HTTP.
HTTP_STATUSES: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.DATA_LOSS: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNIMPLEMENTED: 405,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 413,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
# Errors whose HTTP status says more: a full queue is worth another try, other RESOURCE_EXHAUSTED are not.
FINER_HTTP_STATUSES: dict[type[Exception], int] = {QueueFull: 429, SlowSender: 408}

# For exceptions that do not name the field themselves.
FIELDS: tuple[tuple[type[Exception], str], ...] = (
    (codec.ImageError, "image_file"),
    (codec.TensorError, "tensor"),
    (codec.NonFiniteError, "tensor.data"),
    (codec.BitstreamError, "lat.payloads"),
)


def status_code(error: Exception) -> grpc.StatusCode:
    """Map an exception to its status code; INTERNAL for any that is not in the table."""
    return next((code for kind, code in STATUS_TABLE if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def http_status(error: Exception) -> int:
    """Map an exception to its HTTP status; 500 for any that is not in the table."""
    return FINER_HTTP_STATUSES.get(type(error)) or HTTP_STATUSES[status_code(error)]


def to_status(error: Exception, request_id: str) -> status_pb2.Status:
    """Map an exception to the status for the client, with details; a fault of the server goes only to the log.

    Args:
        error: the exception of a request.
        request_id: goes to the client, and into the log beside the traceback.
    """
    code = status_code(error)
    message = str(error)
    if code is grpc.StatusCode.INTERNAL:
        log.error("request failed", exc_info=error, extra={"request_id": request_id})
        message = INTERNAL_TEXT
    message = _cut(message, MAX_MESSAGE_BYTES)
    details: list[object] = [
        error_details_pb2.ErrorInfo(reason=type(error).__name__, domain=DOMAIN),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        field = getattr(error, "field", None) or next((name for kind, name in FIELDS if isinstance(error, kind)), "")
        violation = error_details_pb2.BadRequest.FieldViolation(field=_cut(field, MAX_FIELD_BYTES), description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, QueueFull):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)  # type: ignore[arg-type]
    return status_pb2.Status(code=code.value[0], message=message, details=packed)


def _cut(text: str, max_bytes: int) -> str:
    """Cut a text to a number of bytes in UTF-8, with an ellipsis where its end is missing."""
    encoded = text.encode()
    return text if len(encoded) <= max_bytes else encoded[: max_bytes - 3].decode(errors="ignore") + "..."


def forget_frames(error: BaseException) -> None:
    """Cut an exception off from the frames that it passed, once its status has been sent.

    The frames hold the request, an image perhaps, and refer by tasks and futures to the exception. The circle would
    keep all of that in memory until the garbage collector runs.
    """
    passed: BaseException | None = error
    while passed is not None:
        passed.__traceback__ = None
        passed = passed.__cause__ or passed.__context__
