# SPDX-License-Identifier: Apache-2.0
"""Images and latents <-> messages: every form that a user may hold arrives as it was, or is refused with a remedy."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import ExifTags, Image, ImageCms

from latentwire_client import EncodeOptions, LatentKind, Latents
from latentwire_client._convert import (
    from_image_tensor,
    from_latents,
    single,
    to_compress_request,
    to_decode_request,
    to_encode_request,
    to_file_output,
    to_image_tensor,
    to_latents,
    to_tensor_output,
    with_image,
)
from latentwire_client._outbox import encode_outbox
from latentwire_client._settings import Address, Settings
from latentwire_client.config import Limits, Retry, Timeout
from latentwire_client.info import Execution, OnExecution, ServerInfo
from latentwire_codec.images.files import read_image
from latentwire_core.errors import ImageError
from latentwire_core.noise import MAX_SEED
from latentwire_proto.v1 import latent_codec_pb2 as pb

Bytes = npt.NDArray[np.uint8]


def client_settings(on_execution: OnExecution | None = None) -> Settings:
    return Settings(Address("host:1", None, False), "", Timeout(), Retry(), Limits(), on_execution)


@pytest.fixture(scope="module")
def pixels() -> Bytes:
    """Numbers of every size, uint8 (11,16,3)."""
    return np.random.default_rng(0).integers(0, 256, (11, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def photo(pixels: Bytes) -> bytes:
    return saved(Image.fromarray(pixels), "PNG")


def saved(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def request(image: object, **options: Any) -> pb.EncodeRequest:
    return with_image(to_encode_request(cast(EncodeOptions, options), ""), cast(Any, image))


def arrived(image: Image.Image) -> Bytes:
    """What the server sees of a PIL image."""
    return read_image(request(image).image_file)


def test_a_path_and_bytes_of_every_type_send_the_file_unchanged(tmp_path: Path, photo: bytes) -> None:
    path = tmp_path / "photo"
    path.write_bytes(photo)
    for image in (str(path), path, photo, bytearray(photo), memoryview(photo)):
        assert request(image).image_file == photo
        assert request(image).WhichOneof("input") == "image_file"


def test_a_path_that_cannot_be_read_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        request(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        request(str(tmp_path))


@pytest.mark.parametrize("image", [None, 5, {}, {1}, object(), iter([b""])])
def test_what_is_no_image_is_a_type_error_that_says_what_is(image: object) -> None:
    with pytest.raises(TypeError, match=f"a path, bytes, a PIL image or a numpy array, not {type(image).__name__}"):
        request(image)


def with_transparency(mode: str, pixels: Bytes) -> Image.Image:
    image = Image.fromarray(pixels).convert(mode)
    if mode == "P":
        image.info["transparency"] = bytes(range(256))
    else:
        image.info["transparency"] = image.getpixel((4, 3))
    return image


MODES: dict[str, Callable[[Bytes], Image.Image]] = {
    "RGB": Image.fromarray,
    "L": lambda pixels: Image.fromarray(pixels[..., 0]),
    "1": lambda pixels: Image.fromarray(pixels[..., 0] > 127),
    "P": lambda pixels: Image.fromarray(pixels).quantize(40),
    "LA": lambda pixels: Image.fromarray(pixels[..., :2], "LA"),
    "RGBA": lambda pixels: Image.fromarray(np.dstack([pixels, pixels[::-1, :, 0]]), "RGBA"),
    "CMYK": lambda pixels: Image.fromarray(np.dstack([pixels, pixels[::-1, :, 0]]), "CMYK"),
    "I;16": lambda pixels: Image.fromarray(pixels[..., 0].astype(np.uint16) * 257 + 3),
    "I": lambda pixels: Image.fromarray(pixels[..., 0].astype(np.int32) * 257),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_a_pil_image_of_every_mode_arrives_as_its_own_file_would(mode: str, pixels: Bytes) -> None:
    image = MODES[mode](pixels)
    assert image.mode == mode
    np.testing.assert_array_equal(arrived(image), read_image(saved(image, "TIFF" if mode in ("CMYK", "I") else "PNG")))


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_or_palette_arrives(mode: str, pixels: Bytes) -> None:
    image = with_transparency(mode, pixels)
    image = Image.open(io.BytesIO(saved(image, "PNG")))
    assert "transparency" in image.info
    there = arrived(image)
    np.testing.assert_array_equal(there, read_image(saved(image, "PNG")))
    del image.info["transparency"]
    assert not np.array_equal(there, arrived(image))


def test_a_transparent_colour_that_means_nothing_to_the_mode_is_no_hindrance(pixels: Bytes) -> None:
    image = Image.fromarray(pixels).convert("CMYK")
    plain = arrived(image)
    image.info["transparency"] = 0
    np.testing.assert_array_equal(arrived(image), plain)


@pytest.mark.parametrize(("mode", "close"), [("HSV", "RGB"), ("RGBa", "RGBA"), ("La", "LA"), ("RGBX", "RGB")])
def test_a_mode_that_no_file_holds_arrives_as_its_nearest(mode: str, close: str, pixels: Bytes) -> None:
    image = Image.fromarray(pixels).convert("LA" if mode == "La" else "RGBA" if mode == "RGBa" else "RGB").convert(mode)
    np.testing.assert_array_equal(arrived(image), arrived(image.convert(close)))


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_colours_of_another_space_arrive_close(mode: str, pixels: Bytes) -> None:
    image = Image.fromarray(pixels[:, :, ::-1])
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), cast(Any, ImageCms.createProfile("LAB")), "RGB", "LAB"
        )
        converted = ImageCms.applyTransform(image, to_lab)
        assert converted is not None
        there = arrived(converted)
        assert there.shape == pixels.shape
    else:
        there = arrived(image.convert(mode))
        np.testing.assert_allclose(there.astype(int), np.asarray(image).astype(int), atol=3)


def test_floating_point_pixels_are_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"PIL image \(F, \(4, 4\)\) cannot be sent: .*floating point samples"):
        request(Image.new("F", (4, 4), 0.5))


@pytest.mark.parametrize("compression", ["jpeg", "tiff_lzw", "group4"])
def test_how_the_file_of_a_pil_image_was_compressed_does_not_matter(compression: str, pixels: Bytes) -> None:
    mode = "1" if compression == "group4" else "RGB"
    file = saved(Image.fromarray(pixels).convert(mode), "TIFF", compression=compression)
    image = Image.open(io.BytesIO(file)).convert("RGB")
    np.testing.assert_array_equal(arrived(image), np.asarray(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("source", ["JPEG", "PNG", "TIFF", "memory"])
def test_the_orientation_is_applied_once(orientation: int, source: str, pixels: Bytes) -> None:
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = orientation
    file = saved(image, "PNG" if source == "memory" else source, exif=exif)
    if source != "memory":
        image = Image.open(io.BytesIO(file))
    np.testing.assert_array_equal(arrived(image), read_image(file))
    assert arrived(image).shape[:2] == ((11, 16) if orientation < 5 else (16, 11))


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_colour_profile_arrives(pixels: Bytes, orientation: int, transparent: bool) -> None:
    swapped = profile_with_red_and_blue_exchanged()
    image = Image.fromarray(pixels)
    image.info["icc_profile"] = swapped
    if transparent:
        image.info["transparency"] = tuple(pixels[0, 0].tolist())
    image.getexif()[ExifTags.Base.Orientation] = orientation
    np.testing.assert_array_equal(
        arrived(image), read_image(saved(image, "PNG", exif=image.getexif(), icc_profile=swapped))
    )
    plain = image.copy()
    del plain.info["icc_profile"]
    assert not np.array_equal(arrived(image), arrived(plain))


def profile_with_red_and_blue_exchanged() -> bytes:
    """sRGB, with the tags of two primaries exchanged: nothing looks the same."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")


def test_the_frame_that_is_shown_is_the_one_that_is_sent() -> None:
    frames = [Image.new("L", (8, 8), level) for level in (10, 200)]
    with Image.open(io.BytesIO(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))) as animation:
        animation.seek(1)
        assert arrived(animation)[0, 0].tolist() == [200, 200, 200]


def test_a_pil_image_is_not_changed_by_sending_it(pixels: Bytes) -> None:
    image = Image.fromarray(pixels)
    image.getexif()[ExifTags.Base.Orientation] = 6
    arrived(image)
    assert image.size == (16, 11)
    assert image.getexif()[ExifTags.Base.Orientation] == 6


def test_a_pil_image_whose_file_is_broken_is_refused_as_its_file_is(photo: bytes) -> None:
    half = photo[: len(photo) // 2]
    assert request(Image.open(io.BytesIO(half))).image_file == half
    with pytest.raises(ImageError, match="truncated"):
        read_image(half)


def test_a_pil_image_without_pixels_is_a_value_error(photo: bytes) -> None:
    image = Image.open(io.BytesIO(photo))
    image.close()
    with pytest.raises(ValueError, match="cannot be sent"):
        request(image)
    with pytest.raises(ValueError, match=r"PIL image \(RGB, \(0, 3\)\) cannot be sent: it has no pixels"):
        request(Image.new("RGB", (0, 3)))


def test_a_fault_of_an_image_plugin_is_a_value_error(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGB", (4, 4))

    def fail() -> None:
        raise SyntaxError("broken PNG file")

    monkeypatch.setattr(image, "load", fail)
    with pytest.raises(ValueError, match="cannot be sent: broken PNG file"):
        request(image)


@pytest.mark.parametrize(
    ("array", "layout", "shape"),
    [
        (np.zeros((8, 16, 3), np.uint8), pb.IMAGE_LAYOUT_UINT8_NHWC, [1, 8, 16, 3]),
        (np.zeros((2, 8, 16, 3), np.uint8), pb.IMAGE_LAYOUT_UINT8_NHWC, [2, 8, 16, 3]),
        (np.zeros((3, 8, 16), np.float32), pb.IMAGE_LAYOUT_FLOAT_NCHW, [1, 3, 8, 16]),
        (np.zeros((2, 3, 8, 16), np.float16), pb.IMAGE_LAYOUT_FLOAT_NCHW, [2, 3, 8, 16]),
    ],
)
def test_an_array_is_sent_as_raw_images(array: npt.NDArray[Any], layout: int, shape: list[int]) -> None:
    sent = request(array)
    assert sent.WhichOneof("input") == "image_tensor"
    assert sent.image_tensor.layout == layout
    assert list(sent.image_tensor.tensor.shape) == shape
    assert len(sent.image_tensor.tensor.data) == array.nbytes


LAYOUTS: dict[str, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    "contiguous": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "sliced": lambda array: np.repeat(array, 2, axis=1)[:, ::2],
    "reversed": lambda array: np.ascontiguousarray(array[::-1])[::-1],
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "read-only": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_an_array_of_any_memory_layout_travels_right(layout: str, dtype: str, pixels: Bytes) -> None:
    plain = pixels[:8] if dtype == "uint8" else (pixels[:8].transpose(2, 0, 1) / 127.5 - 1).astype(dtype)
    message = to_image_tensor(LAYOUTS[layout](plain))
    assert message.tensor.data == plain.astype(plain.dtype.newbyteorder("<")).tobytes()
    there = from_image_tensor(message)
    assert there.dtype == dtype
    np.testing.assert_array_equal(there[0], plain)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((3, 8, 8), np.float64),
        np.zeros((3, 8, 8), np.int16),
        np.zeros((1, 1, 3, 8, 8), np.float32),
        np.zeros((), np.uint8),
        np.array([None, "text"], object),
    ],
)
def test_an_array_that_is_no_image_is_refused_with_what_it_is_and_what_is_needed(array: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="is needed") as caught:
        request(array)
    assert str(caught.value).startswith(f"image array is {array.dtype} {array.shape}; uint8 (H,W,3)")


def test_the_defaults_are_the_mode_raw_in_half_precision_from_the_client_s_model(photo: bytes) -> None:
    sent = to_encode_request({}, "clients")
    assert sent.model == "clients"
    assert sent.latents.kind == pb.LATENT_KIND_MODE
    assert sent.latents.scale == pb.LATENT_SCALE_RAW
    assert sent.latents.dtype == pb.DTYPE_FLOAT16
    assert not sent.HasField("target_size")


def test_every_option_is_sent(photo: bytes) -> None:
    seeds = [0, MAX_SEED, np.uint64(3)]
    sent = request(photo, kind="sample", scaled=True, dtype="bfloat16", seeds=seeds, size=(64, 32), model="calls")
    assert sent.model == "calls"
    assert sent.latents.kind == pb.LATENT_KIND_SAMPLE
    assert sent.latents.scale == pb.LATENT_SCALE_SCALED
    assert sent.latents.dtype == pb.DTYPE_BFLOAT16
    assert list(sent.latents.seeds) == [0, MAX_SEED, 3]
    assert (sent.target_size.height, sent.target_size.width) == (64, 32)


@pytest.mark.parametrize("make", ["torch.tensor", "numpy.array", "builtins.tuple"])
def test_integers_of_any_library_are_taken(photo: bytes, make: str) -> None:
    library, _, name = make.partition(".")
    numbers = getattr(pytest.importorskip(library), name)
    sent = request(photo, kind="sample", seeds=numbers([3]), size=numbers([64, 32]))
    assert list(sent.latents.seeds) == [3]
    assert (sent.target_size.height, sent.target_size.width) == (64, 32)
    assert to_compress_request({"refinement": numbers([5])[0]}, "").lat.refinement == 5


@pytest.mark.parametrize("kind", LatentKind)
def test_a_kind_is_taken_by_name_or_as_itself(photo: bytes, kind: LatentKind) -> None:
    assert request(photo, kind=kind) == request(photo, kind=kind.value)


WRONG_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"dtype": "float64"}, ValueError, "dtype is 'float64'; it must be one of float32, float16, bfloat16"),
    ({"dtype": "uint8"}, ValueError, "dtype is 'uint8'"),
    ({"kind": "mean"}, ValueError, "kind is 'mean'; it must be one of mode, sample, moments"),
    ({"seeds": [1, -1]}, ValueError, r"seed is -1; it must be in 0\.\.2\^64-1"),
    ({"seeds": [MAX_SEED + 1]}, ValueError, r"seed is 18446744073709551616; it must be in 0\.\.2\^64-1"),
    ({"seeds": [1.5]}, TypeError, "float"),
    ({"seeds": 5}, TypeError, "int"),
    ({"size": (0, 8)}, ValueError, r"size is \(0, 8\); it must be \(height, width\), each in 1..2\^32-1"),
    ({"size": (8, -8)}, ValueError, "it must be"),
    ({"size": (2**32, 8)}, ValueError, "it must be"),
    ({"size": (8, 8.5)}, ValueError, "it must be"),
    ({"size": (8, 8, 3)}, ValueError, "it must be"),
    ({"size": 64}, ValueError, "size is 64; it must be"),
    ({"size": "64x64"}, ValueError, "size is '64x64'; it must be"),
    ({"seed": [1]}, TypeError, "there is no option 'seed'; the options are dtype, kind, model, scaled, seeds, size"),
]


@pytest.mark.parametrize(("options", "kind", "message"), WRONG_OPTIONS)
def test_a_wrong_option_is_refused_for_a_call_and_at_once_for_a_stream(
    photo: bytes, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        request(photo, **options)
    with pytest.raises(kind, match=message):
        encode_outbox([photo], cast(EncodeOptions, options), client_settings())


def test_a_list_with_more_or_fewer_seeds_than_images_is_refused(photo: bytes) -> None:
    for seeds in ([1], [1, 2, 3]):
        with pytest.raises(ValueError, match=f"there are {len(seeds)} seeds for 2 images; give one for each"):
            encode_outbox([photo, photo], {"kind": "sample", "seeds": seeds}, client_settings())


@pytest.mark.parametrize("quality", [None, "best", 0, -1.0, float("nan"), float("inf"), (1,)])
def test_a_quality_that_is_neither_a_name_nor_a_step_is_refused(photo: bytes, quality: Any) -> None:
    with pytest.raises(ValueError, match="it must be lossless, cache, high, medium, low, or steps in units"):
        to_compress_request({"quality": quality}, "")


@pytest.mark.parametrize(
    ("dtype", "layout", "number"),
    [
        ("uint8", pb.IMAGE_LAYOUT_UINT8_NHWC, pb.DTYPE_UNSPECIFIED),
        ("float32", pb.IMAGE_LAYOUT_FLOAT_NCHW, pb.DTYPE_FLOAT32),
        ("float16", pb.IMAGE_LAYOUT_FLOAT_NCHW, pb.DTYPE_FLOAT16),
        ("bfloat16", pb.IMAGE_LAYOUT_FLOAT_NCHW, pb.DTYPE_BFLOAT16),
    ],
)
def test_the_dtype_of_raw_images_decides_their_layout(dtype: str, layout: int, number: int) -> None:
    wanted = to_tensor_output(dtype)
    assert (wanted.layout, wanted.dtype) == (layout, number)
    with pytest.raises(ValueError, match="dtype is 'int8'; it must be one of uint8, float32, float16, bfloat16"):
        to_tensor_output("int8")


def test_a_file_s_format_and_quality_are_checked() -> None:
    assert to_file_output("webp", 100) == pb.ImageFileOutput(format=pb.IMAGE_FORMAT_WEBP, quality=100)
    assert to_file_output("avif", None).quality == 0
    with pytest.raises(ValueError, match="format is 'gif'; it must be one of png, jpeg, webp, avif"):
        to_file_output("gif", None)
    for quality in (0, 101, -1):
        with pytest.raises(ValueError, match=rf"quality is {quality}; it must be in 1\.\.100"):
            to_file_output("jpeg", quality)


latents_arrays = st.sampled_from([np.float32, np.float16]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=4, max_dims=4, min_side=1, max_side=3))
)


@settings(deadline=None)
@given(
    values=latents_arrays,
    kind=st.sampled_from(LatentKind),
    scaled=st.booleans(),
    size=st.none() | st.tuples(st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1)),
    text=st.text(max_size=9),
)
def test_latents_survive_their_message(
    values: npt.NDArray[Any], kind: LatentKind, scaled: bool, size: tuple[int, int] | None, text: str
) -> None:
    moments = kind is LatentKind.MOMENTS
    sent = Latents(
        values, values[::-1] if moments else None, kind, scaled and not moments, size, text, text + "@1", text + "2"
    )  # fmt: skip
    there = from_latents(pb.Latents.FromString(to_latents(sent).SerializeToString()))
    assert there.values.dtype == values.dtype
    assert there.values.flags.writeable
    assert there.values.tobytes() == sent.values.tobytes()
    assert there.values.shape == sent.values.shape
    if moments:
        assert there.logvar is not None
        assert there.logvar.tobytes() == values[::-1].tobytes()
    for name in ("kind", "scaled", "image_size", "model", "latent_space", "weights_digest"):
        assert getattr(there, name) == getattr(sent, name)


def test_big_endian_latents_travel_right() -> None:
    plain = np.arange(8, dtype=np.float16).reshape(1, 2, 2, 2)
    there = from_latents(to_latents(Latents(plain.astype(">f2")))).values
    np.testing.assert_array_equal(there, plain)
    assert there.dtype == np.float16


def test_decoding_leaves_out_what_it_has_no_use_for() -> None:
    values = np.ones((1, 2, 2, 2), np.float32)
    moments = Latents(values, values, LatentKind.MOMENTS, latent_space="s@1", image_size=(3, 4))
    sent = to_decode_request(moments, to_tensor_output("uint8"), "m")
    assert not sent.latents.HasField("logvar")
    assert (sent.model, sent.latents.latent_space) == ("m", "s@1")
    assert sent.WhichOneof("output") == "image_tensor"
    assert to_decode_request(moments, to_file_output("png", None), "").WhichOneof("output") == "image_files"
    assert moments.logvar is not None


@given(number=st.floats(width=16, allow_nan=False))
def test_bfloat16_becomes_the_float32_that_it_is_the_upper_half_of(number: float) -> None:
    words = np.array([number], np.float32).view(np.uint32) >> 16
    tensor = pb.Tensor(dtype=pb.DTYPE_BFLOAT16, shape=[1, 1, 1, 1], data=words.astype("<u2").tobytes())
    there = from_latents(pb.Latents(values=tensor)).values
    assert there.dtype == np.float32
    assert there.shape == (1, 1, 1, 1)
    assert there.view(np.uint32).item() == (words << 16).item()
    np.testing.assert_allclose(there.item(), number, rtol=2**-7, atol=1e-38)


def test_special_numbers_survive_bfloat16() -> None:
    words = np.array([0x7F80, 0xFF80, 0x7FC0, 0x8000, 0x3F80, 0xC000], "<u2")
    tensor = pb.Tensor(dtype=pb.DTYPE_BFLOAT16, shape=[6], data=words.tobytes())
    there = from_image_tensor(pb.ImageTensor(tensor=tensor))
    np.testing.assert_array_equal(there, np.array([np.inf, -np.inf, np.nan, -0.0, 1.0, -2.0], np.float32))
    assert np.signbit(there[3])


def test_an_unspecified_kind_is_the_mode() -> None:
    message = to_latents(Latents(np.zeros((1, 1, 1, 1), np.float32)))
    message.ClearField("kind")
    message.ClearField("scale")
    there = from_latents(message)
    assert there.kind is LatentKind.MODE
    assert not there.scaled


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (pb.Tensor(), "dtype number 0"),
        (pb.Tensor(dtype=cast(Any, 99), shape=[1, 1, 1, 1], data=b"1234"), "dtype number 99, which this version"),
        (pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[1, 1, 1, 2], data=b"1234"), "reshape"),
        (pb.Tensor(dtype=pb.DTYPE_FLOAT32, shape=[1, 1, 1, 1], data=b"123"), "buffer size"),
        (pb.Tensor(dtype=pb.DTYPE_BFLOAT16, shape=[1, 1, 1, 1], data=b"123"), "buffer size"),
        (pb.Tensor(dtype=pb.DTYPE_UINT8, shape=[1, 1, 1, 4], data=b"1234"), "latents are uint8"),
    ],
)
def test_an_answer_that_contradicts_itself_is_a_value_error(tensor: pb.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_latents(pb.Latents(values=tensor))


def test_an_answer_of_an_unknown_kind_is_a_value_error() -> None:
    message = to_latents(Latents(np.zeros((1, 1, 1, 1), np.float32)))
    message.kind = cast(Any, 99)
    with pytest.raises(ValueError, match="99"):
        from_latents(message)


def test_single_images_only() -> None:
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    image = single(pixels[:1], Latents(np.zeros((1, 1, 1, 1), np.float32)))
    np.testing.assert_array_equal(np.asarray(image), pixels[0])
    with pytest.raises(ValueError, match=r"latents of 2 images; decode latents.split\(\), or use decode_array"):
        single(pixels, Latents(np.zeros((2, 1, 1, 1), np.float32)))


def test_times_are_reported_in_seconds() -> None:
    executions: list[Execution] = []
    execution = pb.Execution(
        queue_ns=10**9, compute_ns=5 * 10**8, coding_ns=1, batch_size=3, float32_retry=True,
        model="m", weights_digest="d", approximate_tiling=True,
    )  # fmt: skip
    client_settings(executions.append).report(pb.EncodeResponse(execution=execution))
    assert executions == [Execution(1.0, 0.5, 1e-9, 3, True, "m", "d", True)]
    client_settings().report(pb.DecodeResponse(execution=execution))


def test_what_a_server_says_of_itself_becomes_plain_values() -> None:
    model = pb.ModelInfo(
        name="m", latent_channels=4, downsample_factor=8, scale=[0.5], shift=[0.25], dtype=pb.DTYPE_BFLOAT16,
        config_json='{"act_fn": "silu"}', has_logvar=True, loaded=True,
    )  # fmt: skip
    fixed = pb.ModelInfo(fixed_size=pb.ImageSize(height=32, width=64))
    limits = pb.Limits(max_message_bytes=1, max_image_side=2, max_image_pixels=3, max_refinement=4)
    info = ServerInfo.from_message(pb.GetServerInfoResponse(version="1.2.3", limits=limits, models=[model, fixed]))
    assert (info.version, info.limits.max_image_pixels, info.limits.max_refinement) == ("1.2.3", 3, 4)
    one, other = info.models
    assert (one.name, one.scale, one.shift, one.dtype, one.fixed_size) == ("m", (0.5,), (0.25,), "bfloat16", None)
    assert one.config == {"act_fn": "silu"}
    assert (other.fixed_size, other.config) == ((32, 64), {})


def test_the_iterations_of_a_refinement_are_asked_for_whatever_names_the_quality() -> None:
    for quality in ("low", 0.5):
        assert to_compress_request({"quality": quality, "refinement": 30}, "").lat.refinement == 30
    assert to_compress_request({}, "").lat.refinement == 0


@pytest.mark.parametrize("refinement", [-1, 2**32])
def test_a_refinement_that_is_no_number_of_iterations_is_refused(refinement: int) -> None:
    with pytest.raises(ValueError, match=f"refinement is {refinement}; it must be a number of iterations in"):
        to_compress_request({"refinement": refinement}, "")
