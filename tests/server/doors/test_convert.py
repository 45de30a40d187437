# SPDX-License-Identifier: Apache-2.0
"""Messages to jobs and results to messages: nothing is lost, nothing unknown gets through."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_core.formats import ImageFormat
from latentwire_core.kinds import LatentKind
from latentwire_core.quality import LOSSLESS
from latentwire_core.quality import STEPS as QUALITIES
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_server.config import ServerConfig
from latentwire_server.doors.grpc import convert
from latentwire_server.doors.grpc.convert import (
    from_decode_result,
    from_encode_result,
    from_limits,
    from_spec,
    to_decode_job,
    to_encode_job,
)
from latentwire_server.engine.jobs import DecodeJob, DecodeResult, EncodeResult, Execution, FileOutput
from latentwire_server.errors import InvalidRequest

unhurried = settings(deadline=None)
EXECUTION = Execution(
    queue_ns=1,
    compute_ns=2,
    coding_ns=3,
    batch_size=4,
    float32_retry=True,
    model="name",
    weights_digest="ab" * 32,
    approximate_tiling=True,
)
UNKNOWN = 99


def tensor_message(tensor: Tensor) -> pb.Tensor:
    message = from_decode_result(DecodeResult(tensor, EXECUTION)).image_tensor.tensor
    copy = pb.Tensor()
    copy.ParseFromString(message.SerializeToString())
    return copy


def file_request(**latents: object) -> pb.EncodeRequest:
    return pb.EncodeRequest(image_file=b"file", latents=pb.LatentOutput(**latents))  # type: ignore[arg-type]


def latents_request(shape: tuple[int, ...] = (1, 4, 2, 3)) -> pb.DecodeRequest:
    return pb.DecodeRequest(latents=pb.Latents(values=tensor_message(torch.zeros(shape))))


def tensor_job(request: pb.DecodeRequest) -> DecodeJob:
    return to_decode_job(request)


def pixels_request() -> pb.EncodeRequest:
    pixels = tensor_message(torch.zeros(1, 2, 3, 3, dtype=torch.uint8))
    return pb.EncodeRequest(image_tensor=pb.ImageTensor(tensor=pixels, layout=pb.IMAGE_LAYOUT_UINT8_NHWC))


def refused_encode(request: pb.EncodeRequest) -> tuple[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        to_encode_job(request)
    return convert.ENCODE_FIELDS.get(caught.value.field, caught.value.field), str(caught.value)


def refused_decode(request: pb.DecodeRequest) -> tuple[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        to_decode_job(request)
    return convert.DECODE_FIELDS.get(caught.value.field, caught.value.field), str(caught.value)


# Completeness


@pytest.mark.parametrize(
    ("table", "enum"),
    [
        (convert.KINDS, pb.LatentKind),
        (convert.SCALES, pb.LatentScale),
        (convert.FORMATS, pb.ImageFormat),
        (convert.QUALITIES, pb.LatQuality),
    ],
)
def test_every_value_of_an_enum_is_in_its_table(table: Mapping[int, object], enum: EnumTypeWrapper) -> None:
    assert set(table) == set(enum.values())


def test_every_dtype_but_unspecified_is_in_the_table() -> None:
    assert set(convert.DTYPES) == set(pb.DType.values()) - {pb.DTYPE_UNSPECIFIED}


def test_every_kind_and_format_of_the_server_can_be_asked_for() -> None:
    assert set(convert.KINDS.values()) == set(convert.TO_KIND) == set(LatentKind)
    assert set(convert.FORMATS.values()) == set(ImageFormat)
    assert set(convert.QUALITIES.values()) == {LOSSLESS, *QUALITIES}


# Tensors

INT_OF_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


@st.composite
def tensors(draw: st.DrawFn, dtypes: list[torch.dtype]) -> Tensor:
    """Tensors of any bits, NaN and infinities included, in the image layout of their dtype."""
    dtype = draw(st.sampled_from(dtypes))
    batch, height, width = (draw(st.integers(1, 4)) for _ in range(3))
    shape = (batch, height, width, 3) if dtype == torch.uint8 else (batch, 3, height, width)
    count = batch * height * width * 3 * dtype.itemsize
    data = draw(st.binary(min_size=count, max_size=count))
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype).reshape(shape)


def bits(tensor: Tensor) -> list[int]:
    return tensor.contiguous().view(INT_OF_SIZE[tensor.dtype.itemsize]).flatten().tolist()


@unhurried
@given(tensor=tensors([torch.uint8, torch.float32, torch.float16, torch.bfloat16]))
def test_image_tensors_of_every_dtype_and_shape_go_round_bit_by_bit(tensor: Tensor) -> None:
    message = from_decode_result(DecodeResult(tensor, EXECUTION)).image_tensor
    image = to_encode_job(pb.EncodeRequest(image_tensor=message)).image
    assert isinstance(image, Tensor)
    assert image.dtype == tensor.dtype
    assert image.shape == tensor.shape
    assert bits(image) == bits(tensor)


@unhurried
@given(tensor=tensors([torch.float32, torch.float16, torch.bfloat16]))
def test_latents_of_every_dtype_and_shape_go_round_bit_by_bit(tensor: Tensor) -> None:
    result = encode_result(values=tensor, logvar=tensor)
    latents = from_encode_result(result).latents
    assert latents.values == latents.logvar
    job = tensor_job(pb.DecodeRequest(latents=latents))
    assert job.latents.dtype == tensor.dtype
    assert job.latents.shape == tensor.shape
    assert bits(job.latents) == bits(tensor)


@pytest.mark.parametrize(
    ("dtype", "name", "data"),
    [
        (torch.float32, pb.DTYPE_FLOAT32, "0000c03f"),
        (torch.float16, pb.DTYPE_FLOAT16, "003e"),
        (torch.bfloat16, pb.DTYPE_BFLOAT16, "c03f"),
    ],
)
def test_the_number_one_and_a_half_has_its_little_endian_bytes(dtype: torch.dtype, name: "pb.DType", data: str) -> None:
    message = tensor_message(torch.full((1, 1, 1, 1), 1.5, dtype=dtype))
    assert (message.dtype, message.data.hex()) == (name, data)


def test_a_tensor_that_is_not_contiguous_is_sent_in_c_order() -> None:
    tensor = torch.arange(6.0).reshape(1, 1, 2, 3).transpose(2, 3)
    for dtype in (torch.float32, torch.bfloat16):
        message = tensor_message(tensor.to(dtype))
        assert list(message.shape) == [1, 1, 3, 2]
        assert message == tensor_message(tensor.to(dtype).contiguous())


def test_a_job_may_write_into_its_tensor() -> None:
    job = tensor_job(latents_request())
    job.latents.add_(1)
    assert job.latents.sum() == 24


@pytest.mark.parametrize("wrong", [-1, 1, 4])
def test_a_tensor_of_the_wrong_length_is_refused(wrong: int) -> None:
    request = latents_request()
    right = request.latents.values.data
    request.latents.values.data = right[:wrong] if wrong < 0 else right + b"\0" * wrong
    expected = rf"tensor has {96 + wrong} bytes; float32 of the shape \(1, 4, 2, 3\) takes 96"
    with pytest.raises(InvalidRequest, match=expected):
        to_decode_job(request)


@pytest.mark.parametrize("shape", [[0, 4, 2, 3], [1, 4, 0, 3]])
def test_a_tensor_with_an_empty_side_is_refused(shape: list[int]) -> None:
    request = latents_request()
    request.latents.values.shape[:] = shape
    with pytest.raises(InvalidRequest, match="it needs sides of at least 1"):
        to_decode_job(request)


@pytest.mark.parametrize("shape", [[], [24], [4, 2, 3], [1] * 5, [1] * 65, [2**32 - 1] * 600])
def test_a_tensor_without_four_axes_is_refused(shape: list[int]) -> None:
    request = latents_request()
    request.latents.values.shape[:] = shape
    with pytest.raises(InvalidRequest, match=f"tensor has {len(shape)} axes; it needs 4"):
        to_decode_job(request)


def test_a_shape_of_astronomical_size_is_refused_by_its_length() -> None:
    request = latents_request()
    request.latents.values.shape[:] = [2**32 - 1] * 4
    with pytest.raises(InvalidRequest, match=r"tensor has 96 bytes; .* takes \d+"):
        to_decode_job(request)


@pytest.mark.parametrize("dtype", [pb.DTYPE_UNSPECIFIED, UNKNOWN])
def test_a_tensor_without_a_known_dtype_is_refused(dtype: "pb.DType") -> None:
    request = latents_request()
    request.latents.values.dtype = dtype
    field, message = refused_decode(request)
    assert field == "latents.values.dtype"
    name = "DTYPE_UNSPECIFIED" if dtype == pb.DTYPE_UNSPECIFIED else "99"
    assert message == (
        f"latents.values.dtype is {name}; accepted here: DTYPE_FLOAT32, DTYPE_FLOAT16, DTYPE_BFLOAT16, DTYPE_UINT8"
    )


# Encode


def test_encode_defaults_are_the_protos() -> None:
    job = to_encode_job(pb.EncodeRequest(image_file=b"file"))
    assert job.image == b"file"
    assert job.target_size is None
    assert job.kind is LatentKind.MODE
    assert job.scaled is False
    assert job.dtype == torch.float16
    assert job.seeds == ()


def test_encode_takes_what_is_named() -> None:
    request = file_request(
        kind=pb.LATENT_KIND_SAMPLE,
        scale=pb.LATENT_SCALE_SCALED,
        dtype=pb.DTYPE_BFLOAT16,
        seeds=[2**64 - 1],
    )
    request.target_size.height, request.target_size.width = 3, 5
    job = to_encode_job(request)
    assert (job.target_size, job.kind) == ((3, 5), LatentKind.SAMPLE)
    assert (job.scaled, job.dtype, job.seeds) == (True, torch.bfloat16, (2**64 - 1,))


def test_encode_without_an_image_is_refused() -> None:
    assert refused_encode(pb.EncodeRequest()) == (
        "input",
        "there is no image; set image_file or image_tensor",
    )


@pytest.mark.parametrize(
    ("latents", "field"),
    [
        ({"kind": UNKNOWN}, "latents.kind"),
        ({"scale": UNKNOWN}, "latents.scale"),
        ({"dtype": UNKNOWN}, "latents.dtype"),
        ({"dtype": pb.DTYPE_UINT8}, "latents.dtype"),
    ],
)
def test_encode_refuses_values_that_it_does_not_know(latents: dict[str, int], field: str) -> None:
    refused, message = refused_encode(file_request(**latents))
    assert refused == field
    name = "DTYPE_UINT8" if pb.DTYPE_UINT8 in latents.values() else "99"
    assert message.startswith(f"{field} is {name}; accepted here: ")


@pytest.mark.parametrize(
    ("request_", "field", "problem"),
    [
        (
            file_request(kind=pb.LATENT_KIND_MOMENTS, scale=pb.LATENT_SCALE_SCALED),
            "latents.scale",
            "moments are always raw",
        ),
        (file_request(seeds=[1]), "latents.seeds", "seeds are for a sample, not for mode"),
        (file_request(kind=pb.LATENT_KIND_SAMPLE, seeds=[1, 2]), "latents.seeds", "2 seeds for 1 images"),
        (
            pb.EncodeRequest(image_file=b"file", target_size=pb.ImageSize(height=5)),
            "target_size",
            "target_size is 0x5; each side must be >= 1",
        ),
        (pb.EncodeRequest(image_file=b"file", lat=pb.LatOutput(step=-1.0)), "lat.step", "step is -1.0; it must be"),
        (
            pb.EncodeRequest(image_file=b"file", lat=pb.LatOutput(quality=pb.LAT_QUALITY_LOSSLESS, refinement=30)),
            "lat.refinement",
            "refinement is 30, but lossless keeps latents as they are",
        ),
    ],
)
def test_what_a_job_refuses_is_told_by_the_field_of_the_message(
    request_: pb.EncodeRequest, field: str, problem: str
) -> None:
    refused, message = refused_encode(request_)
    assert refused == field
    assert message.startswith(problem)


@pytest.mark.parametrize(
    ("message", "images"),
    [
        (pb.EncodeRequest(), 1),
        (pb.EncodeRequest(image_file=b"file"), 1),
        (pixels_request(), 1),
        (latents_request((3, 4, 2, 3)), 3),
        (pb.DecodeRequest(), 1),
    ],
)
def test_images_are_counted_by_what_a_message_announces(
    message: pb.EncodeRequest | pb.DecodeRequest, images: int
) -> None:
    assert convert.count_images(message) == images


@pytest.mark.parametrize("shape", [[], [24], [0, 4, 2, 3], [2**32 - 1, 4, 2, 3], [9] * 5])
def test_a_number_of_images_that_the_bytes_cannot_hold_counts_as_one(shape: list[int]) -> None:
    request = latents_request()
    request.latents.values.shape[:] = shape
    assert convert.count_images(request) == 1


@pytest.mark.parametrize("layout", [pb.IMAGE_LAYOUT_UNSPECIFIED, UNKNOWN])
def test_a_raw_image_must_name_its_layout(layout: "pb.ImageLayout") -> None:
    request = pixels_request()
    request.image_tensor.layout = layout
    field, message = refused_encode(request)
    assert field == "image_tensor.layout"
    assert message == f"layout is {layout}; set UINT8_NHWC or FLOAT_NCHW"


@pytest.mark.parametrize(
    ("layout", "shape", "dtype"),
    [
        (pb.IMAGE_LAYOUT_UINT8_NHWC, (1, 3, 8, 8), torch.uint8),
        (pb.IMAGE_LAYOUT_UINT8_NHWC, (1, 8, 8, 4), torch.uint8),
        (pb.IMAGE_LAYOUT_UINT8_NHWC, (1, 8, 8, 3), torch.float32),
        (pb.IMAGE_LAYOUT_FLOAT_NCHW, (1, 3, 8, 8), torch.uint8),
        (pb.IMAGE_LAYOUT_FLOAT_NCHW, (1, 8, 8, 3), torch.float32),
        (pb.IMAGE_LAYOUT_FLOAT_NCHW, (1, 1, 8, 8), torch.float16),
    ],
)
def test_a_raw_image_that_is_not_as_its_layout_says_is_refused(
    layout: "pb.ImageLayout", shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    image = pb.ImageTensor(tensor=tensor_message(torch.zeros(shape, dtype=dtype)), layout=layout)
    with pytest.raises(InvalidRequest) as caught:
        to_encode_job(pb.EncodeRequest(image_tensor=image))
    assert str(shape) in str(caught.value)
    assert pb.ImageLayout.Name(layout).removeprefix("IMAGE_LAYOUT_") in str(caught.value)


# Decode


def test_decode_defaults_are_the_protos() -> None:
    job = tensor_job(latents_request())
    assert (job.latent_space, job.weights_digest) == ("", "")
    assert job.scaled is False
    assert job.image_size is None
    assert job.output == torch.uint8


def test_decode_takes_what_is_named() -> None:
    request = latents_request()
    request.latents.scale = pb.LATENT_SCALE_SCALED
    request.latents.latent_space = "sd1"
    request.latents.image_size.height, request.latents.image_size.width = 3, 5
    job = tensor_job(request)
    assert (job.scaled, job.latent_space) == (True, "sd1")
    assert job.image_size == (3, 5)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (pb.ImageTensorOutput(), torch.uint8),
        (pb.ImageTensorOutput(layout=pb.IMAGE_LAYOUT_UINT8_NHWC), torch.uint8),
        (pb.ImageTensorOutput(dtype=pb.DTYPE_FLOAT16), torch.uint8),  # ignored, as documented
        (pb.ImageTensorOutput(layout=pb.IMAGE_LAYOUT_FLOAT_NCHW), torch.float32),
        (
            pb.ImageTensorOutput(layout=pb.IMAGE_LAYOUT_FLOAT_NCHW, dtype=pb.DTYPE_BFLOAT16),
            torch.bfloat16,
        ),
    ],
)
def test_decode_gives_the_tensor_that_is_asked_for(output: pb.ImageTensorOutput, expected: torch.dtype) -> None:
    request = latents_request()
    request.image_tensor.CopyFrom(output)
    assert to_decode_job(request).output == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (pb.ImageFileOutput(), FileOutput(ImageFormat.PNG, None)),
        (pb.ImageFileOutput(format=pb.IMAGE_FORMAT_JPEG), FileOutput(ImageFormat.JPEG, None)),
        (
            pb.ImageFileOutput(format=pb.IMAGE_FORMAT_WEBP, quality=100),
            FileOutput(ImageFormat.WEBP, 100),
        ),
        (
            pb.ImageFileOutput(format=pb.IMAGE_FORMAT_AVIF, quality=1),
            FileOutput(ImageFormat.AVIF, 1),
        ),
    ],
)
def test_decode_gives_the_files_that_are_asked_for(output: pb.ImageFileOutput, expected: FileOutput) -> None:
    request = latents_request()
    request.image_files.CopyFrom(output)
    assert to_decode_job(request).output == expected


def without_latents(request: pb.DecodeRequest) -> None:
    request.ClearField("latents")


def with_uint8_latents(request: pb.DecodeRequest) -> None:
    pixels = torch.zeros(1, 2, 3, 4, dtype=torch.uint8)
    request.latents.values.CopyFrom(tensor_message(pixels))


def with_unknown_scale(request: pb.DecodeRequest) -> None:
    request.latents.scale = UNKNOWN  # type: ignore[assignment]


def with_empty_size(request: pb.DecodeRequest) -> None:
    request.latents.image_size.height = 5


def with_unknown_layout(request: pb.DecodeRequest) -> None:
    request.image_tensor.layout = UNKNOWN  # type: ignore[assignment]


def with_uint8_as_float(request: pb.DecodeRequest) -> None:
    request.image_tensor.layout = pb.IMAGE_LAYOUT_FLOAT_NCHW
    request.image_tensor.dtype = pb.DTYPE_UINT8


def with_unknown_format(request: pb.DecodeRequest) -> None:
    request.image_files.format = UNKNOWN  # type: ignore[assignment]


def with_quality_over_100(request: pb.DecodeRequest) -> None:
    request.image_files.format = pb.IMAGE_FORMAT_JPEG
    request.image_files.quality = 101


def with_quality_for_png(request: pb.DecodeRequest) -> None:
    request.image_files.quality = 50


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        (without_latents, "input", "set latents"),
        (with_uint8_latents, "latents.values.dtype", "latents are a float tensor"),
        (with_unknown_scale, "latents.scale", "latents.scale is 99; accepted here: "),
        (with_empty_size, "latents.image_size", "0x5; each side must be >= 1"),
        (with_unknown_layout, "image_tensor.layout", "layout 99 is unknown"),
        (with_uint8_as_float, "image_tensor.dtype", "image_tensor.dtype is DTYPE_UINT8"),
        (with_unknown_format, "image_files.format", "image_files.format is 99"),
        (with_quality_over_100, "image_files.quality", "quality is 101; it must be in 1..100"),
        (with_quality_for_png, "image_files.quality", "PNG is lossless"),
    ],
)
def test_decode_refuses_with_the_field_and_the_reason(
    change: Callable[[pb.DecodeRequest], None], field: str, message: str
) -> None:
    request = latents_request()
    change(request)
    refused, text = refused_decode(request)
    assert refused == field
    assert message in text


# Answers


def encode_result(
    values: Tensor,
    *,
    logvar: Tensor | None = None,
    kind: LatentKind = LatentKind.MODE,
    scaled: bool = False,
) -> EncodeResult:
    return EncodeResult(
        values=values,
        logvar=logvar,
        kind=kind,
        scaled=scaled,
        image_size=(15, 23),
        latent_space="space@1",
        execution=EXECUTION,
    )


@pytest.mark.parametrize("kind", LatentKind)
@pytest.mark.parametrize("scaled", [False, True])
def test_encoded_latents_say_what_they_are(kind: LatentKind, scaled: bool) -> None:
    result = encode_result(torch.zeros(1, 4, 2, 3), kind=kind, scaled=scaled)
    latents = from_encode_result(result).latents
    assert latents.kind == pb.LatentKind.Value(f"LATENT_KIND_{kind.name}")
    assert latents.scale == (pb.LATENT_SCALE_SCALED if scaled else pb.LATENT_SCALE_RAW)
    assert latents.image_size == pb.ImageSize(height=15, width=23)
    assert (latents.model, latents.latent_space) == ("name", "space@1")
    assert latents.weights_digest == "ab" * 32
    assert not latents.HasField("logvar")


def test_answers_tell_how_they_were_carried_out() -> None:
    expected = pb.Execution(
        queue_ns=1,
        compute_ns=2,
        coding_ns=3,
        batch_size=4,
        float32_retry=True,
        model="name",
        weights_digest="ab" * 32,
        approximate_tiling=True,
    )
    assert from_encode_result(encode_result(torch.zeros(1, 1, 1, 1))).execution == expected
    assert from_decode_result(DecodeResult([b"file"], EXECUTION)).execution == expected


def test_decoded_images_say_their_layout() -> None:
    pixels = from_decode_result(DecodeResult(torch.zeros(1, 2, 3, 3, dtype=torch.uint8), EXECUTION))
    assert pixels.image_tensor.layout == pb.IMAGE_LAYOUT_UINT8_NHWC
    floats = from_decode_result(DecodeResult(torch.zeros(1, 3, 2, 3), EXECUTION))
    assert floats.image_tensor.layout == pb.IMAGE_LAYOUT_FLOAT_NCHW


def test_decoded_files_keep_their_order() -> None:
    response = from_decode_result(DecodeResult([b"a", b"b"], EXECUTION))
    assert list(response.image_files.files) == [b"a", b"b"]


def test_limits_are_the_configurations() -> None:
    config = ServerConfig(max_message_mib=3, max_side=100, max_batch=5, max_queue=9, stream_window=7, max_refinement=3)
    assert from_limits(config) == pb.Limits(
        max_message_bytes=3 * 2**20,
        max_image_side=100,
        max_image_pixels=2**20,
        max_batch_images=5,
        max_queue_images=9,
        stream_window=7,
        max_refinement=3,
    )


@pytest.mark.parametrize(("max_queue", "images"), [(1, 1), (4, 3), (86, 64), (256, 64)])
def test_no_request_may_have_more_images_than_a_client_s_share_of_the_queue(max_queue: int, images: int) -> None:
    assert from_limits(ServerConfig(max_batch=64, max_queue=max_queue)).max_batch_images == images


def test_a_model_is_told_in_full() -> None:
    spec = AutoencoderSpec(
        class_name="AutoencoderKL",
        config={"scaling_factor": 0.5, "block_out_channels": (4, 8)},
        latent_space="sd1",
        weights_digest="ab" * 32,
        file_sha256="cd" * 32,
        latent_channels=4,
        downsample_factor=8,
        fixed_size=(32, 64),
        scale=(1.0, 2.0, 3.0, 4.0),
        shift=(0.25,),
        latent_units=None,
        parameters=10**7,
        weights_bytes=10**8,
        device="cpu",
        dtype="bfloat16",
        rewrites=True,
    )
    info = from_spec("name", spec, loaded=True)
    fields = {field.name for field, _ in info.ListFields()}
    assert fields == set(pb.ModelInfo.DESCRIPTOR.fields_by_name)
    assert info.fixed_size == pb.ImageSize(height=32, width=64)
    assert info.loaded
    assert not from_spec("name", spec, loaded=False).loaded
    assert not from_spec("name", replace(spec, fixed_size=None), loaded=True).HasField("fixed_size")
    assert (info.name, info.class_name, info.latent_space) == ("name", "AutoencoderKL", "sd1")
    assert (info.latent_channels, info.downsample_factor) == (4, 8)
    assert (tuple(info.scale), tuple(info.shift)) == (spec.scale, spec.shift)
    assert (info.dtype, info.device) == (pb.DTYPE_BFLOAT16, "cpu")
    assert json.loads(info.config_json) == {"scaling_factor": 0.5, "block_out_channels": [4, 8]}


# `.lat` payloads


@pytest.mark.parametrize(
    ("output", "quality"),
    [
        (pb.LatOutput(), "cache"),
        (pb.LatOutput(quality=pb.LAT_QUALITY_UNSPECIFIED), "cache"),
        (pb.LatOutput(quality=pb.LAT_QUALITY_LOSSLESS), "lossless"),
        (pb.LatOutput(quality=pb.LAT_QUALITY_LOW), "low"),
        (pb.LatOutput(step=0.125), 0.125),
    ],
)
def test_a_payload_is_made_of_the_raw_mode_unrounded(output: pb.LatOutput, quality: str | float) -> None:
    job = to_encode_job(pb.EncodeRequest(image_file=b"file", lat=output))
    assert job.lat_quality == quality
    assert (job.kind, job.scaled, job.dtype, job.seeds) == (LatentKind.MODE, False, torch.float32, ())


def test_a_tensor_is_the_answer_where_no_payload_is_asked_for() -> None:
    assert to_encode_job(file_request()).lat_quality is None
    assert from_encode_result(encode_result(torch.zeros(1, 4, 2, 3))).WhichOneof("output") == "latents"


def test_an_unknown_lat_quality_is_refused_by_name() -> None:
    output = pb.LatOutput(quality=UNKNOWN)  # type: ignore[arg-type]
    field, text = refused_encode(pb.EncodeRequest(image_file=b"file", lat=output))
    assert field == "lat.quality"
    assert "LAT_QUALITY_CACHE" in text


@pytest.mark.parametrize("output", [pb.LatOutput(refinement=30), pb.LatOutput(step=0.5, refinement=30)])
def test_the_iterations_of_a_refinement_are_taken_over(output: pb.LatOutput) -> None:
    assert to_encode_job(pb.EncodeRequest(image_file=b"file", lat=output)).refinement == 30
    assert to_encode_job(pb.EncodeRequest(image_file=b"file", lat=pb.LatOutput())).refinement == 0
    assert to_encode_job(file_request()).refinement == 0


def test_payloads_are_answered_as_they_are() -> None:
    result = replace(encode_result(torch.zeros(2, 1, 1, 1)), payloads=[b"one", b"two"])
    response = from_encode_result(result)
    assert response.WhichOneof("output") == "lat"
    assert response.execution.model == "name"
    assert list(response.lat.payloads) == [b"one", b"two"]
