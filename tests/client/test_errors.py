# SPDX-License-Identifier: Apache-2.0
"""What a call can fail with: every status has its exception, and nothing that a server sends breaks the mapping."""

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

import latentwire_client
from latentwire_client import errors
from latentwire_client.errors import (
    CODE_TABLE,
    REQUEST_ID,
    STATUS_DETAILS,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    InvalidRequest,
    LatentSpaceMismatch,
    LatentwireError,
    Overloaded,
    ServerFault,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownModel,
    UnsupportedVersion,
    from_rpc_error,
    from_status,
)
from latentwire_server.errors import STATUS_TABLE

EXPECTED = {
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNKNOWN: ServerFault,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: UnknownModel,
    grpc.StatusCode.ALREADY_EXISTS: ServerFault,
    grpc.StatusCode.PERMISSION_DENIED: Unauthenticated,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TooLarge,
    grpc.StatusCode.FAILED_PRECONDITION: LatentSpaceMismatch,
    grpc.StatusCode.ABORTED: ServerFault,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.UNIMPLEMENTED: ServerFault,
    grpc.StatusCode.INTERNAL: ServerFault,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DATA_LOSS: DataLoss,
}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LatentwireError)]


class FakeRpcError(Exception):
    """What gRPC raises, as far as the mapping looks at it."""

    def __init__(
        self, code: grpc.StatusCode, details: str | None, trailers: Sequence[tuple[str, str | bytes]] | None = ()
    ) -> None:
        super().__init__()
        self._answers = (code, details, trailers)

    def code(self) -> grpc.StatusCode:
        return self._answers[0]

    def details(self) -> str | None:
        return self._answers[1]

    def trailing_metadata(self) -> Sequence[tuple[str, str | bytes]] | None:
        return self._answers[2]


def status(code: grpc.StatusCode | int, message: str = "wrong", *details: Any) -> status_pb2.Status:
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(
        code=code if isinstance(code, int) else code.value[0], message=message, details=packed
    )  # fmt: skip


def violations(**fields: str) -> Any:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
            for field, text in fields.items()
        ]
    )  # fmt: skip


def retry_in(seconds: int, nanos: int = 0) -> Any:
    return error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds, nanos=nanos))


def broken(type_name: str) -> any_pb2.Any:
    return any_pb2.Any(type_url=f"type.googleapis.com/{type_name}", value=b"\xff\xff")


def test_the_table_has_every_status_but_ok() -> None:
    assert set(CODE_TABLE) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


def test_every_status_that_the_server_sends_is_more_than_a_fault() -> None:
    sent = {code for _, code in STATUS_TABLE} - {grpc.StatusCode.INTERNAL}
    assert ServerFault not in {CODE_TABLE[code] for code in sent}


@pytest.mark.parametrize("code", EXPECTED)
def test_each_status_is_its_exception_from_a_call_and_from_a_stream(code: grpc.StatusCode) -> None:
    sent = status(code, "what was wrong")
    called = FakeRpcError(code, "", [(STATUS_DETAILS, sent.SerializeToString())])
    for error in (from_status(sent), from_rpc_error(called, "host:1")):
        assert type(error) is EXPECTED[code]
        assert error.code is code
        assert error.details == str(error) == "what was wrong"
        assert error.request_id == ""
    if code is not grpc.StatusCode.CANCELLED:
        assert type(from_rpc_error(FakeRpcError(code, "what was wrong"), "host:1")) is EXPECTED[code]


def test_a_call_that_grpc_cancelled_met_the_end_of_the_server() -> None:
    error = from_rpc_error(FakeRpcError(grpc.StatusCode.CANCELLED, "CANCELLED"), "host:1")
    assert type(error) is Unavailable
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.details == "the server at host:1 stopped during the call (CANCELLED)"


def test_an_invalid_request_names_its_fields_and_the_request() -> None:
    details = (violations(image_file="truncated", model="unknown"), error_details_pb2.RequestInfo(request_id="r-1"))
    error = from_status(status(grpc.StatusCode.INVALID_ARGUMENT, "two things", *details))
    assert isinstance(error, InvalidRequest)
    assert error.fields == {"image_file": "truncated", "model": "unknown"}
    assert error.request_id == "r-1"


def test_an_invalid_request_without_fields_has_none() -> None:
    error = from_status(status(grpc.StatusCode.INVALID_ARGUMENT))
    assert isinstance(error, InvalidRequest)
    assert error.fields == {}


@pytest.mark.parametrize("seconds", [0, 3, 2**40])
def test_a_full_queue_says_when_to_come_back(seconds: int) -> None:
    error = from_status(status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_in(seconds, 250_000_000)))
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == seconds + 0.25


def test_retry_information_makes_nothing_else_overloaded() -> None:
    assert type(from_status(status(grpc.StatusCode.UNAVAILABLE, "soon", retry_in(1)))) is Unavailable


def test_a_payload_of_an_unknown_version_is_told_from_latents_of_another_space() -> None:
    for reason, kind in (("UnsupportedVersion", UnsupportedVersion), ("LatentSpaceMismatch", LatentSpaceMismatch)):
        details = error_details_pb2.ErrorInfo(reason=reason, domain="latentwire")
        assert type(from_status(status(grpc.StatusCode.FAILED_PRECONDITION, "no", details))) is kind
        assert type(from_status(status(grpc.StatusCode.INVALID_ARGUMENT, "no", details))) is InvalidRequest


@pytest.mark.parametrize("code", [0, 17, 99, -1, 2**31 - 1])
def test_a_status_that_is_no_error_or_not_known_is_a_fault_of_the_server(code: int) -> None:
    error = from_status(status(code, "odd"))
    assert type(error) is ServerFault
    assert error.code is grpc.StatusCode.UNKNOWN
    assert error.details == "odd"


def test_broken_details_are_left_out() -> None:
    message = status(grpc.StatusCode.INVALID_ARGUMENT, "still there", error_details_pb2.RequestInfo(request_id="r-2"))
    message.details.add().CopyFrom(broken("google.rpc.BadRequest"))
    message.details.add().CopyFrom(broken("google.rpc.RetryInfo"))
    message.details.add().CopyFrom(broken("nobody.knows.This"))
    message.details.add()
    error = from_status(message)
    assert isinstance(error, InvalidRequest)
    assert (error.details, error.request_id, error.fields) == ("still there", "r-2", {})


@settings(deadline=None)
@given(trailer=st.binary(max_size=40), code=st.sampled_from(list(EXPECTED)))
def test_no_trailer_breaks_the_mapping(trailer: bytes, code: grpc.StatusCode) -> None:
    error = from_rpc_error(FakeRpcError(code, "plain", [(STATUS_DETAILS, trailer)]), "host:1")
    assert isinstance(error, LatentwireError)


def test_a_broken_trailer_leaves_the_status_and_the_request_id() -> None:
    trailers: list[tuple[str, str | bytes]] = [(STATUS_DETAILS, b"\xff\xff\xff"), (REQUEST_ID, "r-3")]
    error = from_rpc_error(FakeRpcError(grpc.StatusCode.NOT_FOUND, "no such model", trailers), "host:1")
    assert type(error) is UnknownModel
    assert (error.details, error.request_id) == ("no such model", "r-3")


def test_a_status_in_the_trailer_goes_before_the_plain_text() -> None:
    trailer = status(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", retry_in(2)).SerializeToString()
    error = from_rpc_error(FakeRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, "", [(STATUS_DETAILS, trailer)]), "host:1")
    assert isinstance(error, Overloaded)
    assert str(error) == "the queue is full"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (grpc.StatusCode.UNAVAILABLE, ["host:1", "connection refused", "latentwire serve"]),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ["connection refused", "--max-message-mib", "max_message_bytes"]),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ["host:1", "raise the timeout"]),
    ],
)
def test_grpc_s_own_errors_get_a_remedy(code: grpc.StatusCode, says: list[str]) -> None:
    error = from_rpc_error(FakeRpcError(code, "connection refused"), "host:1")
    for part in says:
        assert part in str(error)


def test_an_error_without_text_or_trailers_is_mapped() -> None:
    error = from_rpc_error(FakeRpcError(grpc.StatusCode.INTERNAL, None, None), "host:1")
    assert type(error) is ServerFault
    assert (str(error), error.request_id) == ("", "")


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_exported_and_survives_pickling_and_copying(kind: type[LatentwireError]) -> None:
    assert getattr(latentwire_client, kind.__name__) is kind
    assert kind.__name__ in latentwire_client.__all__
    error = kind(grpc.StatusCode.UNKNOWN, "details", "r-4")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is kind
        assert (twin.code, twin.details, twin.request_id) == (grpc.StatusCode.UNKNOWN, "details", "r-4")
        assert str(twin) == "details"


def test_what_only_some_errors_have_survives_pickling() -> None:
    overloaded = from_status(status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_in(7)))
    invalid = from_status(status(grpc.StatusCode.INVALID_ARGUMENT, "bad", violations(size="too small")))
    assert pickle.loads(pickle.dumps(overloaded)).retry_after_s == 7
    assert pickle.loads(pickle.dumps(invalid)).fields == {"size": "too small"}


def test_every_error_of_the_table_is_listed_at_the_head_of_the_module() -> None:
    assert errors.__doc__ is not None
    for kind in KINDS:
        assert kind.__name__ in errors.__doc__
