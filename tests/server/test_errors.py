# SPDX-License-Identifier: Apache-2.0
"""Every exception has a status that was decided on purpose, and the details that belong to it."""

import inspect
import logging
from urllib.parse import quote

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from latentwire_core import errors as codec
from latentwire_server import errors as server
from latentwire_server.errors import (
    INTERNAL_TEXT,
    STATUS_TABLE,
    DeadlineExceeded,
    InvalidRequest,
    ModelUnavailable,
    NotServing,
    QueueFull,
    RequestTooLarge,
    SlowSender,
    Unauthenticated,
    status_code,
    to_status,
)

Code = grpc.StatusCode

# Spelled out a second time on purpose: a change of the table has to be made twice.
DECIDED = {
    InvalidRequest: Code.INVALID_ARGUMENT,
    RequestTooLarge: Code.RESOURCE_EXHAUSTED,
    QueueFull: Code.RESOURCE_EXHAUSTED,
    DeadlineExceeded: Code.DEADLINE_EXCEEDED,
    SlowSender: Code.DEADLINE_EXCEEDED,
    Unauthenticated: Code.UNAUTHENTICATED,
    NotServing: Code.UNAVAILABLE,
    ModelUnavailable: Code.UNAVAILABLE,
    codec.ImageError: Code.INVALID_ARGUMENT,
    codec.ImageTooLarge: Code.RESOURCE_EXHAUSTED,
    codec.TensorError: Code.INVALID_ARGUMENT,
    codec.TensorTooLarge: Code.RESOURCE_EXHAUSTED,
    codec.NonFiniteError: Code.INVALID_ARGUMENT,
    codec.UnknownModel: Code.NOT_FOUND,
    codec.LatentSpaceMismatch: Code.FAILED_PRECONDITION,
    codec.CheckpointError: Code.INTERNAL,
    codec.UnsupportedVersion: Code.FAILED_PRECONDITION,
    codec.ChecksumMismatch: Code.DATA_LOSS,
    codec.Truncated: Code.INVALID_ARGUMENT,
    codec.TrailingBytes: Code.INVALID_ARGUMENT,
    codec.Malformed: Code.INVALID_ARGUMENT,
}
# Base classes: only their subclasses are raised.
BASES = {server.RequestError, codec.CodecError, codec.ModelError, codec.BitstreamError}


def make(kind: type[Exception], text: str = "what was wrong") -> Exception:
    if kind is InvalidRequest:
        return InvalidRequest("some.field", text)
    if kind is QueueFull:
        return QueueFull(text, retry_after_s=1.5)
    return kind(text)


def defined_in(module: object, base: type[Exception]) -> set[type[Exception]]:
    return {kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, base)}


def details(status: status_pb2.Status) -> dict[str, Message]:
    kinds: list[type[Message]] = [
        error_details_pb2.ErrorInfo,
        error_details_pb2.RequestInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
    ]
    found: dict[str, Message] = {}
    for packed in status.details:
        for kind in kinds:
            message = kind()
            if packed.Unpack(message):
                found[kind.__name__] = message
    assert len(found) == len(status.details)
    return found


def test_every_exception_of_server_and_codec_is_decided() -> None:
    defined = defined_in(server, server.RequestError) | defined_in(codec, codec.CodecError)
    assert defined - BASES - {codec.DataError} == set(DECIDED)  # a server reads no data sets


def test_every_row_of_the_table_is_decided_and_none_shadows_another() -> None:
    assert [kind for kind, _ in STATUS_TABLE] == list(dict.fromkeys(k for k, _ in STATUS_TABLE))
    assert {kind for kind, _ in STATUS_TABLE} == set(DECIDED)


@pytest.mark.parametrize("kind", DECIDED, ids=lambda kind: kind.__name__)
def test_an_exception_has_its_decided_status(kind: type[Exception]) -> None:
    assert status_code(make(kind)) is DECIDED[kind]
    assert to_status(make(kind), "id").code == DECIDED[kind].value[0]


@pytest.mark.parametrize("kind", DECIDED, ids=lambda kind: kind.__name__)
def test_details_name_the_class_and_the_request(kind: type[Exception]) -> None:
    found = details(to_status(make(kind), "request-7"))
    info, request = found["ErrorInfo"], found["RequestInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert isinstance(request, error_details_pb2.RequestInfo)
    assert (info.reason, info.domain) == (kind.__name__, "latentwire")
    assert request.request_id == "request-7"


@pytest.mark.parametrize(
    "error",
    [ValueError("secret"), codec.CheckpointError("secret"), codec.ModelError("secret")],
    ids=lambda error: type(error).__name__,
)
def test_internal_hides_the_message_and_logs_it_under_the_request_id(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("latentwire")
    logger.addHandler(caplog.handler)
    try:
        status = to_status(error, "request-8")
    finally:
        logger.removeHandler(caplog.handler)
    assert status.code == Code.INTERNAL.value[0]
    assert status.message == INTERNAL_TEXT
    assert b"secret" not in status.SerializeToString()
    record = caplog.records[0]
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert vars(record)["request_id"] == "request-8"


@pytest.mark.parametrize("kind", [k for k, c in DECIDED.items() if c is not Code.INTERNAL])
def test_other_statuses_tell_the_message(kind: type[Exception]) -> None:
    assert to_status(make(kind), "id").message == "what was wrong"


@pytest.mark.parametrize(
    ("error", "field"),
    [
        (InvalidRequest("latents.seeds", "text"), "latents.seeds"),
        (codec.ImageError("text"), "image_file"),
        (codec.TensorError("text"), "tensor"),
        (codec.NonFiniteError("text"), "tensor.data"),
        (codec.Malformed("text"), "lat.payloads"),
        (codec.Truncated("text"), "lat.payloads"),
    ],
)
def test_invalid_argument_has_a_field_violation(error: Exception, field: str) -> None:
    bad = details(to_status(error, "id"))["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == [(field, "text")]


def test_only_invalid_argument_has_field_violations() -> None:
    having = {kind for kind in DECIDED if "BadRequest" in details(to_status(make(kind), "id"))}
    assert having == {kind for kind, code in DECIDED.items() if code is Code.INVALID_ARGUMENT}


def test_a_full_queue_says_when_to_retry_and_no_other_error_does() -> None:
    having = {kind for kind in DECIDED if "RetryInfo" in details(to_status(make(kind), "id"))}
    assert having == {QueueFull}
    retry = details(to_status(make(QueueFull), "id"))["RetryInfo"]
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 1500


@pytest.mark.parametrize("letter", ["x", "\N{HIRAGANA LETTER A}", "\N{GRINNING FACE}"])
def test_a_message_and_a_field_that_echo_long_values_still_fit_the_trailing_metadata(letter: str) -> None:
    status = to_status(InvalidRequest(f"parameters.{letter * 100_000}", letter * 100_000), "id")
    told = rpc_status.to_status(status)
    # grpc-message travels percent-encoded, -bin metadata in base64; a peer takes 8 KiB in all.
    percent_encoded = len(quote(status.message))
    binary = sum(len(value) * 4 / 3 for _, value in told.trailing_metadata)
    assert percent_encoded + binary < 7500
    bad = details(status)["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert status.message.startswith(letter * 100)
    assert bad.field_violations[0].field.startswith("parameters." + letter * 40)
    assert status.message.endswith(f"{letter}...")
    assert bad.field_violations[0].field.endswith(f"{letter}...")
