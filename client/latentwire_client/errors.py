# SPDX-License-Identifier: Apache-2.0
"""gRPC statuses -> the exceptions of a call.

Each is a `LatentwireError`: InvalidRequest, UnknownModel, LatentSpaceMismatch, WeightsChanged, UnsupportedVersion,
TooLarge, Overloaded, DeadlineExceeded, Unavailable, Unauthenticated, DataLoss, Cancelled, ServerFault.
A path that cannot be read raises OSError, an argument that cannot be sent TypeError or ValueError.
"""

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

STATUS_DETAILS = "grpc-status-details-bin"
REQUEST_ID = "x-request-id"


class LatentwireError(Exception):
    """Base of every error that the server or the way to it causes.

    Attributes:
        code: the gRPC status.
        details: what was wrong, the value, the limit and the remedy.
        request_id: the call's id in the server's log; empty where the call never reached the server.
    """

    def __init__(self, code: grpc.StatusCode, details: str, request_id: str = "") -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.request_id = request_id

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the constructor's arguments: the error crosses process boundaries (DataLoader workers)."""
        return type(self), (self.code, self.details, self.request_id), self.__dict__


class InvalidRequest(LatentwireError):
    """The request is wrong, whatever the state of the server.

    Attributes:
        fields: path of the field in the request -> what is wrong with it.
    """

    fields: Mapping[str, str] = {}


class UnknownModel(LatentwireError):
    """The server has no model of that name."""


class LatentSpaceMismatch(LatentwireError):
    """The latents are of another latent space than the model."""


class WeightsChanged(LatentwireError):
    """A model has other weights than when a `RemoteAutoencoderKL` connected to it; found by the client itself."""


class UnsupportedVersion(LatentwireError):
    """A `.lat` payload is of a version, or coded with tables, that the server does not have."""


class TooLarge(LatentwireError):
    """The request, or its answer, is over a limit."""


class Overloaded(LatentwireError):
    """The server's queue is full.

    Attributes:
        retry_after_s: seconds until the server expects a free place.
    """

    retry_after_s: float = 0.0


class DeadlineExceeded(LatentwireError):
    """There was no answer within the timeout."""


class Unavailable(LatentwireError):
    """No server answers at the address, or it is warming up, draining or at its end."""


class Unauthenticated(LatentwireError):
    """The token is missing or wrong."""


class DataLoss(LatentwireError):
    """A checksum of a `.lat` payload did not match: bytes changed on disk or on the way."""


class Cancelled(LatentwireError):
    """The client was closed during the call."""


class ServerFault(LatentwireError):
    """The server failed; its log has the details under `request_id`."""


# RESOURCE_EXHAUSTED is Overloaded where the server says when to try again, else TooLarge; FAILED_PRECONDITION is
# UnsupportedVersion where the server gives that reason, else LatentSpaceMismatch.
CODE_TABLE: Mapping[grpc.StatusCode, type[LatentwireError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: UnknownModel,
    grpc.StatusCode.FAILED_PRECONDITION: LatentSpaceMismatch,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TooLarge,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Unauthenticated,
    grpc.StatusCode.DATA_LOSS: DataLoss,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.INTERNAL: ServerFault,
    grpc.StatusCode.UNKNOWN: ServerFault,
    grpc.StatusCode.UNIMPLEMENTED: ServerFault,
    grpc.StatusCode.ABORTED: ServerFault,
    grpc.StatusCode.ALREADY_EXISTS: ServerFault,
}
CODES = {code.value[0]: code for code in CODE_TABLE}


def from_status(status: status_pb2.Status) -> LatentwireError:
    """Map the google.rpc.Status of a call or of a stream's item to an exception."""
    code = CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    details = {detail.TypeName(): detail for detail in status.details}
    has_retry, retry = _unpack(details, error_details_pb2.RetryInfo())
    _, info = _unpack(details, error_details_pb2.ErrorInfo())
    _, request = _unpack(details, error_details_pb2.RequestInfo())
    _, bad_request = _unpack(details, error_details_pb2.BadRequest())
    kind = CODE_TABLE[code]
    if kind is TooLarge and has_retry:
        kind = Overloaded
    if kind is LatentSpaceMismatch and info.reason == UnsupportedVersion.__name__:
        kind = UnsupportedVersion
    error = kind(code, status.message, request.request_id)
    if isinstance(error, Overloaded):
        error.retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    if isinstance(error, InvalidRequest):
        error.fields = {violation.field: violation.description for violation in bad_request.field_violations}
    return error


def from_rpc_error(error: Any, target: str, proxy: str = "") -> LatentwireError:
    """Map a grpc.RpcError (of the sync or the asyncio API) on an open channel to an exception.

    Args:
        error: the error of the call.
        target: the address of the server, for the message.
        proxy: the variable of the environment that sends the calls through a proxy; empty: there is no proxy.
    """
    code: grpc.StatusCode = error.code()
    message: str = error.details() or ""
    metadata = dict(error.trailing_metadata() or ())
    if STATUS_DETAILS in metadata:
        try:
            return from_status(status_pb2.Status.FromString(metadata[STATUS_DETAILS]))
        except DecodeError:  # not from our server; the status itself still holds
            pass
    # Below, the message is gRPC's own, which names no remedy.
    if code is grpc.StatusCode.UNAVAILABLE:
        message = (
            f"no server answers at {target} ({message}); start one with `latentwire serve`, or check the address and "
            "whether it speaks TLS"
        )
        if proxy:
            message += f"; the way goes through the proxy of ${proxy}: name the host in no_proxy to go past it"
    elif code is grpc.StatusCode.CANCELLED:  # gRPC's answer to calls that meet a server's last moment
        code, message = grpc.StatusCode.UNAVAILABLE, f"the server at {target} stopped during the call ({message})"
    elif code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        message = f"{message}; send less at once, or raise `serve --max-message-mib` and Limits.max_message_bytes"
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = f"{target} did not answer in time; raise the timeout, or send less at once"
    return CODE_TABLE[code](code, message, str(metadata.get(REQUEST_ID, "")))


def _unpack(details: Mapping[str, AnyMessage], message: Any) -> tuple[bool, Any]:
    """Unpack the detail of an empty message's type into it; return whether there was one, whole, and the message."""
    packed = details.get(message.DESCRIPTOR.full_name)
    try:
        return packed is not None and packed.Unpack(message), message
    except DecodeError:
        return False, type(message)()
