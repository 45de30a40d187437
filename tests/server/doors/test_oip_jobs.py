# SPDX-License-Identifier: Apache-2.0
"""Requests of the Open Inference Protocol -> jobs, results -> answers, without a server."""

import asyncio
import json
import math
import struct
import subprocess
import sys
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_core.errors import TensorError, TensorTooLarge
from latentwire_core.formats import ImageFormat
from latentwire_core.kinds import LatentKind
from latentwire_server.config import ServerConfig
from latentwire_server.doors.oip import jobs, tensors
from latentwire_server.doors.oip import messages as pb
from latentwire_server.doors.oip.jobs import from_decode_result, from_encode_result, timeout_s, to_decode, to_encode
from latentwire_server.doors.oip.models import to_metadata, to_statistics
from latentwire_server.doors.oip.service import OpenInferenceService
from latentwire_server.doors.oip.tensors import DTYPES, FLOATS, from_values, to_value
from latentwire_server.engine.jobs import DecodeResult, EncodeResult, Execution, FileOutput
from latentwire_server.engine.work import Passage
from latentwire_server.errors import InvalidRequest
from latentwire_server.process.lifecycle import Lifecycle
from latentwire_server.telemetry.metrics import Metrics
from latentwire_server.telemetry.statistics import Stages, Work
from tests.server.specs import spec_with

# The dtypes with which tritonclient reads and writes each datatype.
WORDS = {"UINT8": np.uint8, "FP32": np.float32, "FP16": np.float16, "BF16": ml_dtypes.bfloat16}
EXECUTION = Execution(1, 2, 3, 1, False, "tiny", "d1935", False)
SPEC = spec_with(weights_digest="d1935")
ENCODED = EncodeResult(torch.zeros(2, 4, 2, 3), None, LatentKind.MODE, False, (16, 24), "", EXECUTION)


def tensor(name: str, datatype: str, shape: tuple[int, ...], **contents: Any) -> Any:
    message = pb.ModelInferRequest().inputs.add(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(message.contents, field).extend(values)
    return message


def request(*inputs: tuple[str, str, np.ndarray], outputs: tuple[str, ...] = (), **parameters: Any) -> Any:
    message = pb.ModelInferRequest(model_name="tiny.model")
    for name, datatype, array in inputs:
        message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    for name in outputs:
        message.outputs.add(name=name)
    for name, value in parameters.items():
        kind = "bool" if isinstance(value, bool) else {int: "int64", str: "string", float: "double"}[type(value)]
        setattr(message.parameters[name], f"{kind}_param", value)
    return message


PIXELS = ("IMAGE", "UINT8", np.zeros((2, 8, 8, 3), np.uint8))
LATENTS = ("LATENTS", "FP32", np.zeros((2, 4, 4, 4), np.float32))

cases = st.tuples(st.sampled_from(sorted(DTYPES)), npst.array_shapes(max_dims=4, max_side=3))


# Tensors


@given(cases, st.randoms(use_true_random=False))
def test_numbers_of_every_datatype_and_shape_go_in_and_out_bit_by_bit(
    case: tuple[str, tuple[int, ...]], random: Random
) -> None:
    datatype, shape = case
    raw = random.randbytes(math.prod(shape) * DTYPES[datatype].itemsize)
    value = to_value(tensor("X", datatype, shape), [raw])
    assert isinstance(value, torch.Tensor)
    assert (value.dtype, tuple(value.shape)) == (DTYPES[datatype], shape)
    answer = from_values({"X": value})
    assert list(answer.raw_output_contents) == [raw]
    (output,) = answer.outputs
    assert (output.name, output.datatype, tuple(output.shape)) == ("X", datatype, shape)


@given(npst.arrays(np.float32, npst.array_shapes(max_dims=4, max_side=4), elements=st.floats(-8, 8, width=16)))
def test_the_values_of_floats_are_those_that_the_client_sees(array: np.ndarray) -> None:
    for datatype in FLOATS:
        sent = array.astype(WORDS[datatype])
        value = to_value(tensor("X", datatype, sent.shape), [sent.tobytes()])
        assert isinstance(value, torch.Tensor)
        assert np.array_equal(value.float().numpy(), sent.astype(np.float32))


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5))
def test_files_go_in_and_out_byte_by_byte(files: list[bytes]) -> None:
    answer = from_values({"X": tuple(files)})
    (output,), (raw,) = answer.outputs, answer.raw_output_contents
    assert (output.datatype, tuple(output.shape)) == ("BYTES", (len(files), 1))
    for shape in ((len(files), 1), (len(files),)):
        assert to_value(tensor("X", "BYTES", shape), [raw]) == tuple(files)
        assert to_value(tensor("X", "BYTES", shape, bytes_contents=files), []) == tuple(files)


@given(st.binary(max_size=24), st.integers(1, 3))
def test_any_bytes_are_files_or_refused(raw: bytes, wanted: int) -> None:
    try:
        files = to_value(tensor("X", "BYTES", (wanted, 1)), [raw])
    except InvalidRequest:
        return
    assert b"".join(struct.pack("<I", len(one)) + one for one in files) == raw
    assert len(files) == wanted


def test_numbers_may_stand_in_the_message_itself() -> None:
    floats = to_value(tensor("X", "FP32", (1, 3), fp32_contents=[0.5, -1, 2]), [])
    words = to_value(tensor("X", "UINT8", (3, 1), uint_contents=[0, 7, 255]), [])
    assert isinstance(floats, torch.Tensor)
    assert isinstance(words, torch.Tensor)
    assert (floats.dtype, floats.tolist()) == (torch.float32, [[0.5, -1, 2]])
    assert (words.dtype, words.tolist()) == (torch.uint8, [[0], [7], [255]])


def test_many_numbers_in_the_message_itself_are_converted_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "PIECE", 4)
    for count in (4, 9):
        floats = to_value(tensor("X", "FP32", (count,), fp32_contents=range(count)), [])
        words = to_value(tensor("X", "UINT8", (count,), uint_contents=range(count)), [])
        for value in (floats, words):
            assert isinstance(value, torch.Tensor)
            assert value.tolist() == list(range(count))
    with pytest.raises(InvalidRequest, match="X has a 4294967295; UINT8 goes up to 255"):
        to_value(tensor("X", "UINT8", (6,), uint_contents=[0, 1, 2, 3, 4, 2**32 - 1]), [])


@pytest.mark.parametrize(
    ("message", "raw", "field", "words"),
    [
        (tensor("X", "FP64", (1,)), [b"12345678"], "inputs[X].datatype", ["'FP64'", "UINT8", "BYTES"]),
        (tensor("X", "FP32", ()), [b"1234"], "inputs[X].shape", ["()"]),
        (tensor("X", "FP32", (0, 3)), [b""], "inputs[X].shape", ["(0, 3)", "at least 1"]),
        (tensor("X", "FP32", (-1, 3)), [b""], "inputs[X].shape", ["(-1, 3)"]),
        (tensor("X", "FP32", (1,) * 65, fp32_contents=[1]), [], "inputs[X].shape", ["1 to 4 sides"]),
        (tensor("X", "FP32", (2, 3)), [b"1234"], "raw_input_contents", ["4 bytes", "FP32", "(2, 3)", "24"]),
        (tensor("X", "FP32", (2**62, 2**62)), [b"1234"], "raw_input_contents", ["4 bytes"]),
        (tensor("X", "FP32", (1,), fp32_contents=[1]), [b"1234"], "inputs[X].contents", ["one of them"]),
        (tensor("X", "FP16", (1,)), [], "inputs[X].datatype", ["FP16", "raw_input_contents"]),
        (tensor("X", "FP32", (2,), fp32_contents=[1]), [], "inputs[X].contents", ["1 elements", "takes 2"]),
        (tensor("X", "FP32", (1,), uint_contents=[1]), [], "inputs[X].contents", ["0 elements in fp32_contents"]),
        (tensor("X", "UINT8", (1,), uint_contents=[256]), [], "inputs[X].contents", ["256", "255"]),
        (tensor("X", "BYTES", (1, 2)), [b"\0\0\0\0" * 2], "inputs[X].shape", ["(1, 2)", "(B,1)"]),
        (tensor("X", "BYTES", (2, 1)), [b"\0\0\0\0"], "inputs[X].shape", ["1 elements", "2"]),
        (tensor("X", "BYTES", (1, 1)), [b"\0\0\0\0" * 9], "inputs[X].shape", ["more elements", "1"]),
        (tensor("X", "BYTES", (1, 1)), [b"\5\0\0\0abc"], "raw_input_contents", ["within element 0"]),
        (tensor("X", "BYTES", (1, 1)), [b"\5\0"], "raw_input_contents", ["within element 0", "4 bytes"]),
    ],
)
def test_elements_that_are_not_what_the_message_says_are_refused(
    message: Any, raw: list[bytes], field: str, words: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_value(message, raw)
    assert caught.value.field == field
    assert [word for word in words if word not in str(caught.value)] == []


# Requests


def test_without_parameters_pixels_become_the_raw_mode_in_float32() -> None:
    job: Any = to_encode(request(PIXELS), SPEC)
    assert (job.kind, job.scaled, job.dtype) == (LatentKind.MODE, False, torch.float32)
    assert (job.seeds, job.target_size, tuple(job.image.shape)) == ((), None, (2, 8, 8, 3))
    assert timeout_s(request(PIXELS)) is None
    answer = from_encode_result(request(PIXELS), ENCODED)
    assert [output.name for output in answer.outputs] == ["LATENTS"]


def test_without_parameters_raw_latents_become_pixels() -> None:
    job = to_decode(request(LATENTS), SPEC)
    assert (job.scaled, job.image_size, job.output) == (False, None, torch.uint8)
    assert (job.latent_space, job.weights_digest) == ("", "")
    answer = from_decode_result(request(LATENTS), DecodeResult(torch.ones(1, 2, 2, 3), EXECUTION))
    assert [output.name for output in answer.outputs] == ["IMAGE"]


def test_every_parameter_is_obeyed() -> None:
    files = ("IMAGE_FILE", "BYTES", np.frombuffer(b"\2\0\0\0ab\1\0\0\0c", np.uint8))
    message = request(files, kind="sample", seed=2**62, scale="scaled", dtype="BF16", height=8, width=9, timeout=2_500)
    message.inputs[0].shape[:] = (2, 1)
    job: Any = to_encode(message, SPEC)
    assert (job.image, job.target_size, timeout_s(message)) == ((b"ab", b"c"), (8, 9), 0.0025)
    assert (job.kind, job.scaled, job.dtype) == (LatentKind.SAMPLE, True, torch.bfloat16)
    assert job.seeds == (2**62, 2**62 + 1)

    given = {"scale": "scaled", "height": 7, "width": 6, "latent_space": "sd1", "weights_digest": "ab"}
    message = request(LATENTS, outputs=("IMAGE_FILE",), format="jpeg", quality=80, timeout=0, **given)
    job = to_decode(message, SPEC)
    assert (job.scaled, job.image_size, job.latent_space, job.weights_digest) == (True, (7, 6), "sd1", "ab")
    assert job.output == FileOutput(ImageFormat.JPEG, 80)
    assert timeout_s(message) is None
    job = to_decode(request(LATENTS, outputs=("IMAGE",), dtype="FP16"), SPEC)
    assert job.output == torch.float16


def test_a_seed_may_be_any_of_64_bits() -> None:
    message = request(PIXELS, kind="sample")
    message.parameters["seed"].uint64_param = 2**64 - 2
    assert to_encode(message, SPEC).seeds == (2**64 - 2, 2**64 - 1)
    message.parameters["seed"].uint64_param = 2**64 - 1
    with pytest.raises(InvalidRequest, match=rf"seed is {2**64}; it must be in 0\.\.2\^64-1"):
        to_encode(message, SPEC)


def test_who_asks_for_logvar_gets_the_moments() -> None:
    message = request(PIXELS, outputs=("LOGVAR",), kind="mode", scale="raw")
    job = to_encode(message, SPEC)
    assert (job.kind, job.scaled) == (LatentKind.MOMENTS, False)
    answer = from_encode_result(message, replace(ENCODED, logvar=torch.ones(2, 4, 2, 3)))
    assert [output.name for output in answer.outputs] == ["LOGVAR"]


def test_a_model_without_a_logvar_refuses_to_give_one_before_it_computes() -> None:
    message = request(PIXELS, outputs=("LATENTS", "LOGVAR"))
    with pytest.raises(InvalidRequest, match=r"\['LATENTS', 'LOGVAR'\]; tiny.model gives LATENTS, each once"):
        to_encode(message, replace(SPEC, has_logvar=False))


@pytest.mark.parametrize("shape", [(4, 2, 3), (1, 3, 2, 2), (5, 4), (7,)])
def test_latents_of_a_shape_that_the_model_does_not_take_are_refused_before_it_computes(shape: tuple[int, ...]) -> None:
    with pytest.raises(TensorError, match=r"\(B, 4, h, w\) is needed"):
        to_decode(request(("LATENTS", "FP32", np.zeros(shape, np.float32))), SPEC)


@pytest.mark.parametrize(
    ("convert", "message", "field"),
    [
        (to_encode, request(), "inputs"),
        (to_encode, request(PIXELS, PIXELS), "inputs"),
        (to_encode, request(LATENTS), "inputs"),
        (to_encode, request(PIXELS, outputs=("LATENTS", "LATENTS")), "outputs"),
        (to_encode, request(PIXELS, outputs=("IMAGE",)), "outputs"),
        (to_encode, request(PIXELS, outputs=("LOGVAR",), scale="scaled"), "outputs"),
        (to_encode, request(PIXELS, outputs=("LOGVAR",), kind="sample", seed=1), "outputs"),
        (to_encode, request(("IMAGE", "UINT8", np.zeros((8, 8, 3), np.uint8))), "inputs[IMAGE].shape"),
        (to_encode, request(("IMAGE", "FP32", np.zeros((1, 8, 8, 3), np.float32))), "inputs[IMAGE].shape"),
        (to_encode, request(("IMAGE", "BYTES", np.zeros(4, np.uint8)[:1])), "raw_input_contents"),
        (to_encode, request(("IMAGE_FILE", "UINT8", np.zeros((1, 1), np.uint8))), "inputs[IMAGE_FILE].datatype"),
        (to_encode, request(PIXELS, kind="sample"), "parameters[seed]"),
        (to_encode, request(PIXELS, kind="sample", seed=-1), "parameters[seed]"),
        (to_encode, request(PIXELS, seed=1), "parameters[seed]"),
        (to_encode, request(PIXELS, kind="moments"), "parameters[kind]"),
        (to_encode, request(PIXELS, dtype="UINT8"), "parameters[dtype]"),
        (to_encode, request(PIXELS, width=8), "parameters[height]"),
        (to_encode, request(PIXELS, timeout=-1), "parameters[timeout]"),
        (to_encode, request(PIXELS, timeout=1.5), "parameters[timeout]"),
        (to_encode, request(PIXELS, scale=True), "parameters[scale]"),
        (to_encode, request(PIXELS, quality=5), "parameters[quality]"),
        (to_decode, request(PIXELS), "inputs"),
        (to_decode, request(("LATENTS", "UINT8", np.zeros((1, 4, 4, 4), np.uint8))), "inputs[LATENTS].datatype"),
        (to_decode, request(LATENTS, outputs=("IMAGE", "IMAGE_FILE")), "outputs"),
        (to_decode, request(LATENTS, format="png"), "parameters[format]"),
        (to_decode, request(LATENTS, outputs=("IMAGE_FILE",), dtype="FP32"), "parameters[dtype]"),
        (to_decode, request(LATENTS, outputs=("IMAGE_FILE",), format="gif"), "parameters[format]"),
        (to_decode, request(LATENTS, outputs=("IMAGE_FILE",), format="jpeg", quality=0), "parameters[quality]"),
        (to_decode, request(LATENTS, seed=1), "parameters[seed]"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_field(convert: Any, message: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert(message, SPEC)
    assert jobs.FIELDS.get(caught.value.field, caught.value.field) == field


@pytest.mark.parametrize("of", ["inputs", "outputs"])
def test_shared_memory_is_refused_by_its_name(of: str) -> None:
    message = request(PIXELS, outputs=("LATENTS",))
    getattr(message, of)[0].parameters["shared_memory_region"].string_param = "region"
    with pytest.raises(InvalidRequest, match="shared memory") as caught:
        to_encode(message, SPEC)
    assert caught.value.field.endswith(".parameters[shared_memory_region]")


def test_a_second_raw_content_is_refused() -> None:
    message = request(PIXELS)
    message.raw_input_contents.append(b"more")
    with pytest.raises(InvalidRequest, match="2 raw contents"):
        to_encode(message, SPEC)


def test_a_parameter_without_a_value_is_refused() -> None:
    message = request(PIXELS)
    message.parameters["scale"].SetInParent()
    with pytest.raises(InvalidRequest, match="scale is None"):
        to_encode(message, SPEC)


# Answers


def test_the_answer_to_encode_holds_what_decode_needs() -> None:
    values = torch.randn(2, 4, 2, 3)
    result = EncodeResult(values, None, LatentKind.MODE, True, (15, 23), "sd1", EXECUTION)
    answer = from_encode_result(request(PIXELS), result)
    message = request(("LATENTS", "FP32", values.numpy()))
    for name, parameter in answer.parameters.items():
        message.parameters[name].CopyFrom(parameter)
    job = to_decode(message, SPEC)
    assert (job.scaled, job.image_size, job.latent_space, job.weights_digest) == (True, (15, 23), "sd1", "d1935")
    assert torch.equal(job.latents, values)


def test_images_come_as_files_or_as_numbers() -> None:
    wanted = request(LATENTS, outputs=("IMAGE_FILE",))
    files = from_decode_result(wanted, DecodeResult([b"one", b"two"], EXECUTION))
    assert files.raw_output_contents[0] == b"\3\0\0\0one\3\0\0\0two"
    numbers = from_decode_result(request(LATENTS), DecodeResult(torch.ones(1, 2, 2, 3, dtype=torch.uint8), EXECUTION))
    assert (numbers.outputs[0].datatype, numbers.raw_output_contents[0]) == ("UINT8", b"\1" * 12)


# Models


@pytest.mark.parametrize(
    ("fixed_size", "downsample_factor", "has_logvar", "image", "latents"),
    [
        (None, 8, True, [-1, -1, -1, 3], [-1, 4, -1, -1]),
        (None, 8, False, [-1, -1, -1, 3], [-1, 4, -1, -1]),
        ((32, 32), 32, True, [-1, 32, 32, 3], [-1, 4, 1, 1]),
    ],
)
def test_a_model_names_the_tensors_that_it_has(
    fixed_size: tuple[int, int] | None, downsample_factor: int, has_logvar: bool, image: list[int], latents: list[int]
) -> None:
    spec: Any = SimpleNamespace(
        fixed_size=fixed_size, downsample_factor=downsample_factor, has_logvar=has_logvar, latent_channels=4
    )
    encode, decode = (to_metadata(f"tiny.{operation}", operation, spec) for operation in ("encode", "decode"))
    assert {t.name: list(t.shape) for t in encode.inputs} == {"IMAGE": image, "IMAGE_FILE": [-1, 1]}
    assert {t.name: list(t.shape) for t in decode.inputs} == {"LATENTS": latents}
    assert encode.inputs == decode.outputs
    assert {t.name: list(t.shape) for t in encode.outputs} == dict.fromkeys(
        ["LATENTS", "LOGVAR"] if has_logvar else ["LATENTS"], latents
    )


class Anyone:
    """The context of an RPC without a deadline."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> None:
        return None


def engine_of(spec: AutoencoderSpec) -> Any:
    """An engine that makes jobs and does nothing with them."""

    async def work(name: str, passage: Passage[Any, Any, Any], caller: object) -> None:
        passage.images()
        passage.to_job(cast(Any, SimpleNamespace(spec=spec)))

    return SimpleNamespace(
        models={"tiny": SimpleNamespace(spec=spec)},
        model_name=lambda name: name,
        work=SimpleNamespace(encode=work, decode=work),
    )


async def test_more_images_than_a_request_may_have_are_refused_before_any_is_read() -> None:
    metrics = Metrics()
    service = OpenInferenceService(engine_of(SPEC), ServerConfig(max_batch=4), Lifecycle(), metrics)
    message = pb.ModelInferRequest(model_name="tiny.encode", raw_input_contents=[b"no such files"])
    message.inputs.add(name="IMAGE_FILE", datatype="BYTES", shape=(2**40,))
    with pytest.raises(TensorTooLarge, match=f"{2**40} images; at most 4"):
        await service.ModelInfer(message, Anyone())
    assert metrics.statistics.of("tiny", "encode").fail.count == 1


@pytest.mark.parametrize(
    ("model", "name", "datatype", "shape", "problem"),
    [
        ("tiny.encode", "IMAGE", "UINT8", (16, 8, 3), r"image tensor is uint8 \(16, 8, 3\); uint8 is \(B,H,W,3\)"),
        ("tiny.decode", "LATENTS", "FP32", (16, 8, 3), r"latents have the shape \(16, 8, 3\); \(B, 4, h, w\)"),
    ],
)
async def test_a_tensor_without_its_batch_is_not_taken_for_many_images(
    model: str, name: str, datatype: str, shape: tuple[int, ...], problem: str
) -> None:
    service = OpenInferenceService(engine_of(SPEC), ServerConfig(max_batch=4), Lifecycle(), Metrics())
    message = request((name, datatype, np.zeros(shape, WORDS[datatype])))
    message.model_name = model
    with pytest.raises((InvalidRequest, TensorError), match=problem):
        await service.ModelInfer(message, Anyone())


# Statistics


async def test_statistics_are_told_in_the_protocol_s_terms() -> None:
    work = Work()
    with pytest.raises(asyncio.CancelledError):
        async with work.job():
            raise asyncio.CancelledError
    async with work.job():
        work.answered(3, Stages(queue_ns=1, prepare_ns=2, compute_ns=3, finish_ns=4))
    async with work.job():
        work.answered(1, Stages(queue_ns=10, prepare_ns=20, compute_ns=30, finish_ns=40))
    with pytest.raises(ZeroDivisionError):
        async with work.job():
            raise ZeroDivisionError
    for images in (1, 2, 1):
        work.batches[images].add(7)
    told = to_statistics("tiny.encode", work)
    assert (told.name, told.version, told.inference_count, told.execution_count) == ("tiny.encode", "1", 4, 3)
    stats = told.inference_stats
    assert (stats.success.count, stats.fail.count) == (2, 2)
    assert (stats.queue.count, stats.queue.ns, stats.compute_infer.ns) == (2, 11, 33)
    assert (stats.compute_input.ns, stats.compute_output.ns) == (22, 44)
    assert [(one.batch_size, one.compute_infer.count, one.compute_infer.ns) for one in told.batch_stats] == [
        (1, 2, 14),
        (2, 1, 7),
    ]
    assert told.last_inference == work.last_ms > 0


# The protocol

FIELDS_OF_TRITON = """
import json
from tritonclient.grpc import model_config_pb2, service_pb2
files = [module.DESCRIPTOR for module in (service_pb2, model_config_pb2)]
def fields(message):
    inner = [one for nested in message.nested_types for one in fields(nested)]
    return inner + [
        (message.full_name, f.name, f.number, f.type, f.is_repeated, f.message_type and f.message_type.full_name)
        for f in message.fields
    ]
enums = [enum for file in files for enum in file.enum_types_by_name.values()]
enums += [enum for file in files for one in file.message_types_by_name.values() for enum in one.enum_types]
print(json.dumps({
    "fields": [field for file in files for one in file.message_types_by_name.values() for field in fields(one)],
    "values": [(enum.full_name, value.name, value.number) for enum in enums for value in enum.values],
    "methods": [
        (m.name, m.input_type.full_name, m.output_type.full_name)
        for m in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    ],
}))
"""


def test_names_numbers_and_types_are_those_of_tritonclient() -> None:
    result = subprocess.run([sys.executable, "-c", FIELDS_OF_TRITON], capture_output=True, text=True, check=True)
    theirs = {kind: {tuple(one) for one in told} for kind, told in json.loads(result.stdout).items()}
    file = pb.SERVICE.file

    def fields(message: Any) -> list[tuple[Any, ...]]:
        inner = [one for nested in message.nested_types for one in fields(nested)]
        return inner + [
            (message.full_name, f.name, f.number, f.type, f.is_repeated, f.message_type and f.message_type.full_name)
            for f in message.fields
        ]

    messages = file.message_types_by_name.values()
    enums = [*file.enum_types_by_name.values(), *(enum for message in messages for enum in message.enum_types)]
    ours = {
        "fields": {one for message in messages for one in fields(message)},
        "values": {(enum.full_name, value.name, value.number) for enum in enums for value in enum.values},
        "methods": {(m.name, m.input_type.full_name, m.output_type.full_name) for m in pb.SERVICE.methods},
    }
    for kind, told in theirs.items():
        assert ours[kind]
        assert ours[kind] - told == set(), kind
