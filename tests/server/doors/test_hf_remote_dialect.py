# SPDX-License-Identifier: Apache-2.0
"""Requests of diffusers' remote VAE functions -> jobs, results -> answers, without a server."""

import json
import math
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_core.errors import TensorError
from latentwire_core.formats import ImageFormat
from latentwire_core.kinds import LatentKind
from latentwire_server.doors.http import hf_dialect
from latentwire_server.doors.http.hf_dialect import BINARY, Reply
from latentwire_server.doors.http.query import Query
from latentwire_server.engine.jobs import DecodeJob, DecodeResult, EncodeJob, Execution, FileOutput
from latentwire_server.errors import InvalidRequest
from tests.server.specs import spec_with

SPEC = spec_with(scale=(0.5,), shift=(0.25,))
EXECUTION = Execution(0, 0, 0, 1, False, "tiny", "", False)
FLOATS = [torch.float32, torch.float16, torch.bfloat16]
unhurried = settings(deadline=None)  # a busy machine is no failure


def raw(tensor: Tensor) -> bytearray:
    return bytearray(tensor.contiguous().view(torch.uint8).numpy().tobytes())


def of(tensor: Tensor, **parameters: object) -> Query:
    described = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    return Query(urlencode({**described, **parameters}, doseq=True))


def decode(
    tensor: Tensor, accept: str = BINARY, spec: AutoencoderSpec = SPEC, **parameters: object
) -> tuple[DecodeJob, Reply]:
    query = of(tensor, **parameters)
    return hf_dialect.to_decode_job(query, accept, raw(tensor), spec), hf_dialect.to_reply(query, accept)


def encode(tensor: Tensor, **parameters: object) -> EncodeJob:
    return hf_dialect.to_encode_job(of(tensor, **parameters), raw(tensor))


def latents(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*(shape or (1, 4, 2, 3)), generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@unhurried
@given(shape=st.tuples(st.integers(1, 5), st.just(4), st.integers(1, 5), st.integers(1, 5)), seed=st.integers(0, 99))
def test_latents_of_any_shape_and_dtype_arrive_as_they_were(
    dtype: torch.dtype, shape: tuple[int, ...], seed: int
) -> None:
    sent = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    job, _ = decode(sent, output_type="pt")
    assert job.latents.dtype == dtype
    assert torch.equal(job.latents, sent)


@pytest.mark.parametrize(
    ("parameters", "scaled", "scale", "shift"),
    [
        ({}, False, 1.0, 0.0),
        ({"do_scaling": "False"}, False, 1.0, 0.0),
        ({"do_scaling": "True"}, True, None, None),
        ({"do_scaling": "True", "shift_factor": 2}, True, None, 2.0),
        ({"do_scaling": "True", "scaling_factor": 3}, True, 3.0, 0.0),
        ({"scaling_factor": 3}, True, 3.0, 0.0),
        ({"scaling_factor": 3, "shift_factor": 2}, True, 3.0, 2.0),
        ({"shift_factor": 2}, True, 1.0, 2.0),
        ({"shift_factor": 0}, True, 1.0, 0.0),
    ],
)
def test_latents_are_unscaled_by_what_is_sent_and_by_the_model_s_factors_only_where_asked(
    parameters: dict[str, Any], scaled: bool, scale: float | None, shift: float | None
) -> None:
    job, _ = decode(latents(), **parameters)
    assert (job.scaled, job.scale, job.shift) == (scaled, scale, shift)


@pytest.mark.parametrize(
    ("accept", "output_type", "partial", "image_format", "reply"),
    [
        ("image/jpeg", "pil", False, "jpg", Reply.JPEG),
        ("image/png", "pil", False, "png", Reply.PNG),
        ("image/png", "pil", True, "png", Reply.PNG),
        (BINARY, "pil", False, "jpg", Reply.FRAMES),
        (BINARY, "pil", True, "png", Reply.FRAMES),
        (BINARY, "pt", False, "jpg", Reply.FLOATS),
        (BINARY, "pt", True, "png", Reply.PIXELS),
        ("image/png", "pt", True, "jpg", Reply.PNG),
        ("*/*", "pil", False, "png", Reply.PNG),
        ("", "pil", False, "jpg", Reply.JPEG),
        ("*/*", "pt", True, "jpg", Reply.PIXELS),
        ("Image/PNG; q=0.9, */*", "pil", False, "jpg", Reply.PNG),
    ],
)
def test_accept_decides_how_images_travel_and_then_output_type(
    accept: str, output_type: str, partial: bool, image_format: str, reply: Reply
) -> None:
    query = Query(urlencode({"output_type": output_type, "partial_postprocess": partial, "image_format": image_format}))
    assert hf_dialect.to_reply(query, accept) is reply


def test_without_parameters_one_image_is_a_jpeg() -> None:
    assert hf_dialect.to_reply(Query(""), "") is Reply.JPEG


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    ("accept", "parameters", "output"),
    [
        ("image/jpeg", {}, FileOutput(ImageFormat.JPEG, None)),
        ("image/png", {}, FileOutput(ImageFormat.PNG, None)),
        (BINARY, {"output_type": "pt", "partial_postprocess": True}, torch.uint8),
        (BINARY, {"output_type": "pt"}, None),
        (BINARY, {"output_type": "pil"}, None),
    ],
)
def test_float_images_have_the_dtype_of_the_latents(
    dtype: torch.dtype, accept: str, parameters: dict[str, Any], output: FileOutput | torch.dtype | None
) -> None:
    job, _ = decode(latents(dtype=dtype), accept, **parameters)
    assert job.output == (output or dtype)


@unhurried
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    channels=st.integers(1, 4),
    batch=st.integers(1, 3),
    rest=st.tuples(st.integers(0, 15), st.integers(0, 15)),
)
def test_packed_latents_come_back_as_the_flux_pipeline_unpacks_them(
    rows: int, columns: int, channels: int, batch: int, rest: tuple[int, int]
) -> None:
    spec = replace(SPEC, latent_channels=channels)
    packed = latents(batch, rows * columns, 4 * channels)
    height, width = 16 * rows + rest[0], 16 * columns + rest[1]
    job, _ = decode(packed, spec=spec, height=height, width=width, output_type="pt")
    assert torch.equal(job.latents, FluxPipeline._unpack_latents(packed, height, width, 8))


def test_three_axes_without_the_shape_of_packed_ones_are_one_image() -> None:
    one = latents(4, 6, 16)  # 16 is also 4C
    sizes: tuple[dict[str, Any], ...] = ({}, {"height": 48, "width": 128})
    for size in sizes:
        job, _ = decode(one, **size)
        assert torch.equal(job.latents, one.unsqueeze(0))


@pytest.mark.parametrize("shape", [(3, 7, 16), (1, 5, 16), (1, 6, 15)])
@pytest.mark.parametrize("size", [{}, {"height": 32, "width": 48}])
def test_three_axes_that_are_neither_are_refused_with_both_forms(shape: tuple[int, ...], size: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"\(4, h, w\) or packed, \(B, .*, 16\)"):
        decode(latents(*shape), **size)


@pytest.mark.parametrize("shape", [(512, 64), (300, 3, 1, 1), (7,), (1, 2, 2, 4), (2, 4, 1, 1, 1)])
def test_latents_of_another_shape_are_no_batch_of_latents(shape: tuple[int, ...]) -> None:
    with pytest.raises(TensorError, match=r"\(B, 4, h, w\) is needed"):
        decode(latents(*shape), "image/png")


def test_height_and_width_beside_four_axes_mean_nothing() -> None:
    job, _ = decode(latents(), height=1, width=1)
    assert (job.image_size, job.latents.shape) == (None, (1, 4, 2, 3))


def test_parameters_of_other_clients_are_ignored() -> None:
    job, _ = decode(latents(), input_tensor_type="binary", output_tensor_type="binary", whatever="x")
    assert not job.scaled


@pytest.mark.parametrize(
    ("value", "parameters", "fits"),
    [
        (500.0, {}, True),
        (513.0, {}, False),
        (255.0, {"do_scaling": True}, True),
        (257.0, {"do_scaling": True}, False),
        (50.0, {"scaling_factor": 0.1}, True),
        (60.0, {"scaling_factor": 0.1}, False),
        (-60.0, {"scaling_factor": -0.1}, False),
        (float("nan"), {}, False),
        (float("inf"), {}, False),
        (float("-inf"), {}, False),
    ],
)
def test_latents_that_nothing_makes_are_refused_with_the_likely_causes(
    value: float, parameters: dict[str, Any], fits: bool
) -> None:
    odd = latents()
    odd[0, 1, 1, 2] = value
    if fits:
        decode(odd, **parameters)
        return
    causes = r"scaling_factor.*float16.*diffusers.*\.cpu\(\)\.contiguous\(\)"
    with pytest.raises(InvalidRequest, match=causes) as caught:
        decode(odd, **parameters)
    assert f"{abs(value):.4g}" in str(caught.value)
    assert len(str(caught.value)) <= 400  # the limit of a message


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("dtype=float16", "shape", r"shape is \[\]"),
        ("shape=1&shape=4&shape=1&shape=1", "dtype", "there is no dtype; send one of float16, float32, bfloat16"),
        ("shape=1&shape=4&shape=1&shape=1&dtype=float64", "dtype", "dtype is float64; accepted here: float16"),
        ("shape=1&shape=4&shape=1&shape=1&dtype=uint8", "dtype", "dtype is uint8"),
        ("shape=1&shape=4&shape=0&shape=1&dtype=float16", "shape", r"\[1, 4, 0, 1\]; .* at least 1"),
        ("shape=1&shape=4&shape=1&shape=2&dtype=float16", "body", "the body has 8 bytes; .* takes 16"),
        ("shape=-4&dtype=float16", "shape", "whole number"),
        ("shape=1&shape=4&shape=1&shape=1&dtype=float16&scaling_factor=0", "scaling_factor", "0; nothing"),
        ("shape=1&shape=4&shape=1&shape=1&dtype=float16&scaling_factor=nan", "scaling_factor", "finite"),
        ("shape=1&shape=4&shape=1&shape=1&dtype=float16&shift_factor=one", "shift_factor", "one; .* finite"),
        ("shape=1&shape=4&shape=1&shape=1&dtype=float16&do_scaling=yes", "do_scaling", "true or false"),
        ("output_type=mp4", "output_type", "mp4, but the models here make images"),
        ("output_type=np", "output_type", "np; accepted here: pil, pt"),
        ("image_format=webp", "image_format", "webp; accepted here: jpg, png"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(text: str, field: str, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem) as caught:
        hf_dialect.to_decode_job(Query(text), "", bytearray(8), SPEC)
    assert caught.value.field == field


def test_several_latents_do_not_fit_into_one_image_file() -> None:
    with pytest.raises(InvalidRequest, match=r"2 latents.*partial_postprocess=True"):
        decode(latents(2, 4, 1, 1), "image/png")
    job, _ = decode(latents(2, 4, 1, 1), output_type="pt", partial_postprocess=True)
    assert len(job.latents) == 2


def test_an_image_is_a_file_where_no_shape_is_sent_and_the_answer_float16() -> None:
    job = hf_dialect.to_encode_job(Query(""), bytearray(b"a file"))
    assert (job.image, job.dtype, job.kind) == (b"a file", torch.float16, LatentKind.MODE)
    assert not job.scaled


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_float_image_is_taken_as_it_is_and_answered_in_its_dtype(dtype: torch.dtype) -> None:
    image = latents(2, 3, 4, 5).clamp(-1, 1).to(dtype)
    job = encode(image)
    assert isinstance(job.image, Tensor)
    assert torch.equal(job.image, image)
    assert job.dtype == dtype


@unhurried
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))
def test_uint8_images_are_channels_first_and_answered_in_float16(batch: int, height: int, width: int) -> None:
    image = torch.arange(batch * 3 * height * width).remainder(256).to(torch.uint8).view(batch, 3, height, width)
    job = encode(image)
    assert isinstance(job.image, Tensor)
    assert torch.equal(job.image, image.permute(0, 2, 3, 1))
    assert job.dtype == torch.float16


def test_one_image_may_come_without_its_batch_axis() -> None:
    image = encode(torch.zeros(3, 4, 5)).image
    assert isinstance(image, Tensor)
    assert image.shape == (1, 3, 4, 5)


@pytest.mark.parametrize(
    ("parameters", "scaled", "scale", "shift"),
    [
        ({}, False, 1.0, 0.0),
        ({"scaling_factor": 3}, True, 3.0, 0.0),
        ({"scaling_factor": 3, "shift_factor": 2}, True, 3.0, 2.0),
        ({"shift_factor": 2}, True, 1.0, 2.0),
    ],
)
def test_encoded_latents_are_scaled_by_what_is_sent_alone(
    parameters: dict[str, Any], scaled: bool, scale: float, shift: float
) -> None:
    job = encode(torch.zeros(1, 3, 4, 4), **parameters)
    assert (job.scaled, job.scale, job.shift) == (scaled, scale, shift)


def test_a_sample_has_a_seed_for_each_image() -> None:
    job = encode(torch.zeros(2, 3, 4, 4), sample="true", seed=[7, 8])
    assert (job.kind, job.seeds) == (LatentKind.SAMPLE, (7, 8))
    with pytest.raises(InvalidRequest, match="sample=true"):
        encode(torch.zeros(2, 3, 4, 4), seed=7)


def test_what_a_job_refuses_is_told_by_the_parameter() -> None:
    for seeds, problem in (([7], "1 seeds for 2 images"), ([7, 2**64], "it must be in 0..2")):
        with pytest.raises(InvalidRequest, match=problem) as caught:
            encode(torch.zeros(2, 3, 4, 4), sample="true", seed=seeds)
        assert hf_dialect.FIELDS[caught.value.field] == "seed"


@pytest.mark.parametrize(
    ("shape", "size", "images"),
    [
        ((), {}, 1),
        ((3, 4, 2, 2), {}, 3),
        ((4, 2, 2), {}, 1),
        ((4, 2, 2), {"height": 16, "width": 16}, 1),
        ((3, 6, 16), {"height": 32, "width": 48}, 3),
        ((2**40, 4, 2, 2), {}, 1),
        ((0, 4, 2, 2), {}, 1),
    ],
)
def test_images_are_counted_by_what_the_query_announces(
    shape: tuple[int, ...], size: dict[str, int], images: int
) -> None:
    query = Query(urlencode({"shape": list(shape), **size}, doseq=True))
    assert hf_dialect.count_images(query, bytearray(64), SPEC) == images


def test_latents_sent_as_an_image_are_refused_with_where_to_send_them() -> None:
    with pytest.raises(InvalidRequest, match=r"\(1, 4, 2, 3\); \(B, 3, H, W\).*tensor/binary or to /decode"):
        encode(latents())


@pytest.mark.parametrize("value", [255.0, float("nan")])
def test_an_image_of_another_range_is_refused_with_the_likely_causes(value: float) -> None:
    with pytest.raises(InvalidRequest, match=rf"{value:.4g}, .*\[-1, 1\].*diffusers.*\.contiguous"):
        encode(torch.full((1, 3, 4, 4), value))


@pytest.mark.parametrize(
    ("content_type", "operation"),
    [
        ("tensor/binary", "decode"),
        ("Tensor/Binary; version=1", "decode"),
        ("tensor/base64", "decode"),
        ("", "encode"),
        ("image/png", "encode"),
        ("application/x-www-form-urlencoded", "encode"),
    ],
)
def test_the_type_of_a_body_says_what_to_do_with_it(content_type: str, operation: str) -> None:
    assert hf_dialect.to_operation(content_type) == operation


def test_the_retired_form_is_refused_with_the_one_in_use() -> None:
    with pytest.raises(InvalidRequest, match="tensor/binary"):
        hf_dialect.check_content_type("tensor/base64")
    hf_dialect.check_content_type("tensor/binary")


@pytest.mark.parametrize("dtype", [*FLOATS, torch.uint8], ids=str)
@unhurried
@given(shape=st.tuples(*[st.integers(1, 4)] * 4))
def test_a_tensor_is_answered_as_its_bytes_with_shape_and_dtype_beside_them(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    images = (torch.arange(math.prod(shape)).view(shape) % 256).to(dtype).transpose(1, 2)
    answer = hf_dialect.from_decode_result(DecodeResult(images, EXECUTION), Reply.FLOATS)
    # diffusers reads an answer in this way.
    read = torch.frombuffer(bytearray(answer.body), dtype=getattr(torch, answer.headers["dtype"]))
    assert torch.equal(read.reshape(json.loads(answer.headers["shape"])), images)


def test_a_file_is_answered_as_it_is() -> None:
    answer = hf_dialect.from_decode_result(DecodeResult([b"file"], EXECUTION), Reply.PNG)
    assert (answer.body, answer.media_type, answer.headers) == (b"file", "image/png", {})


def test_frames_are_clamped_to_0_and_1() -> None:
    images = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5]).view(1, 1, 1, 5)
    answer = hf_dialect.from_decode_result(DecodeResult(images, EXECUTION), Reply.FRAMES)
    assert np.frombuffer(answer.body, np.float32).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
