# SPDX-License-Identifier: Apache-2.0
"""The fake is exact: whoever tests against it can work out by hand what must come back."""

import io
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from latentwire_client import (
    Client,
    InvalidRequest,
    LatentKind,
    Latents,
    LatentwireError,
    Overloaded,
    Retry,
    TooLarge,
    Unavailable,
)
from latentwire_client.testing import FakeServer
from latentwire_proto import __version__
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub


@pytest.fixture
def server() -> Any:
    with FakeServer() as server:
        yield server


@pytest.fixture
def client(server: FakeServer) -> Any:
    with Client(server.target, retry=Retry(attempts=1)) as client:
        yield client


def noise(height: int, width: int, batch: int = 1) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def block_means(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The means of 8x8 blocks in [-1,1], blocks at the edges filled up with the last line: (H,W,3) -> (3,h,w)."""
    rows, columns = -(-pixels.shape[0] // 8), -(-pixels.shape[1] // 8)
    means = np.empty((3, rows, columns))
    for row in range(rows):
        for column in range(columns):
            lines = np.minimum(np.arange(row * 8, row * 8 + 8), pixels.shape[0] - 1)
            places = np.minimum(np.arange(column * 8, column * 8 + 8), pixels.shape[1] - 1)
            means[:, row, column] = pixels[lines][:, places].mean(axis=(0, 1)) / 127.5 - 1
    return means


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 8), (8, 8), (17, 3), (64, 40)])
def test_latents_are_the_means_of_blocks_and_images_have_their_size_again(
    client: Client, height: int, width: int
) -> None:
    pixels = noise(height, width)[0]
    latents = client.encode(Image.fromarray(pixels), dtype="float32")
    means = block_means(pixels)
    np.testing.assert_allclose(latents.values[0], means, atol=1e-6)
    assert latents.image_size == (height, width)
    assert (latents.model, latents.latent_space) == ("fake", "latentwire-fake@1")
    decoded = np.asarray(client.decode(latents))
    blocks = np.rint((means + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0).repeat(8, axis=0).repeat(8, axis=1)
    np.testing.assert_array_equal(decoded, blocks[:height, :width])


def test_a_batch_of_raw_images_is_encoded_one_by_one(client: Client) -> None:
    pixels = noise(16, 24, batch=3)
    values = client.encode(pixels, dtype="float32").values
    for image, latents in zip(pixels, values, strict=True):
        np.testing.assert_allclose(latents, block_means(image), atol=1e-6)
    floats = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    np.testing.assert_array_equal(client.encode(floats, dtype="float32").values, values)


@pytest.mark.parametrize("shape", [(8, 9, 3), (1, 1, 3), (3, 12, 8)])
def test_raw_images_must_be_multiples_of_the_factor_as_at_a_real_server(client: Client, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="multiples of 8"):
        client.encode(np.zeros(shape, np.uint8 if shape[-1] == 3 else np.float32))


def test_a_flat_image_comes_back_unchanged_whatever_the_dtype(client: Client) -> None:
    for level in (0, 1, 127, 128, 254, 255):
        for dtype in ("float16", "bfloat16", "float32"):
            latents = client.encode(np.full((8, 8, 3), level, np.uint8), dtype=dtype)
            assert latents.values.dtype == (np.float16 if dtype == "float16" else np.float32)
            assert set(np.asarray(client.decode(latents)).flat) == {level}


def test_every_kind_is_the_mean(client: Client) -> None:
    pixels = noise(8, 16)
    mode = client.encode(pixels)
    sample = client.encode(pixels, kind="sample", seeds=[1])
    moments = client.encode(pixels, kind="moments")
    assert [latents.kind for latents in (mode, sample, moments)] == ["mode", "sample", "moments"]
    for latents in (sample, moments):
        np.testing.assert_array_equal(latents.values, mode.values)
    assert moments.logvar is not None
    assert set(moments.logvar.flat) == {-30.0}
    scaled = client.encode(pixels, scaled=True)
    assert scaled.scaled
    np.testing.assert_array_equal(scaled.values, mode.values)
    with pytest.raises(InvalidRequest, match="moments are always raw"):
        client.encode(pixels, kind="moments", scaled=True)


def test_a_size_scales_and_crops_as_at_a_real_server(client: Client) -> None:
    image = Image.new("RGB", (100, 50), "red")
    latents = client.encode(image, size=(16, 40))
    assert latents.image_size == (16, 40)
    assert latents.values.shape == (1, 3, 2, 5)
    assert client.decode(latents).size == (40, 16)


def test_orientation_is_applied(client: Client) -> None:
    turned = Image.new("RGB", (24, 8))
    turned.getexif()[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=turned.getexif())
    assert client.encode(buffer.getvalue()).image_size == (24, 8)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp", "avif"])
def test_images_come_back_as_files_of_every_format(client: Client, image_format: str) -> None:
    latents = client.encode(noise(16, 8, batch=2))
    files = client.decode_files(latents, image_format=image_format)
    assert len(files) == 2
    for file, raw in zip(files, client.decode_array(latents), strict=True):
        with Image.open(io.BytesIO(file)) as image:
            assert image.format == image_format.upper()
            assert image.size == (8, 16)
            if image_format == "png":
                np.testing.assert_array_equal(np.asarray(image), raw)


def test_a_quality_makes_a_difference(client: Client) -> None:
    latents = client.encode(noise(64, 64))
    low, high = (client.decode_files(latents, image_format="jpeg", quality=quality)[0] for quality in (5, 95))
    assert len(low) < len(high)


def test_raw_images_come_back_in_the_dtype_that_was_asked_for(client: Client) -> None:
    latents = client.encode(Image.fromarray(noise(9, 11)[0]), dtype="float32")
    assert client.decode_array(latents).shape == (1, 9, 11, 3)
    for dtype, arrives in (("float32", np.float32), ("float16", np.float16), ("bfloat16", np.float32)):
        floats = client.decode_array(latents, dtype=dtype)
        assert floats.dtype == arrives
        assert floats.shape == (1, 3, 9, 11)
        np.testing.assert_allclose(floats[0, :, 0, 0], latents.values[0, :, 0, 0], atol=1e-3)


def test_streams_give_what_the_calls_give(client: Client, tmp_path: Path) -> None:
    images = [noise(8 * n, 8) for n in range(1, 12)]
    for item, image in zip(client.encode_stream(images).ordered(), images, strict=True):
        np.testing.assert_array_equal(item.get().values, client.encode(image).values)
    missing = tmp_path / "missing"
    errors = {item.index: type(item.error) for item in client.encode_stream([images[0], b"text", missing, images[1]])}
    assert errors == {0: type(None), 1: InvalidRequest, 2: FileNotFoundError, 3: type(None)}


def test_payloads_hold_what_latents_hold_and_only_a_fake_decodes_them(client: Client) -> None:
    pixels = noise(13, 20)[0]
    image = Image.fromarray(pixels)
    payload = client.compress(image)
    assert client.compress([image], quality=0.5) == [payload]
    expected = client.decode(client.encode(image, dtype="float32"))
    assert client.decompress(payload).tobytes() == expected.tobytes()
    assert [item.get() for item in client.compress_stream([image])] == [payload]
    with pytest.raises(InvalidRequest, match="not from a fake server"):
        client.decompress(b"\x89LAT\x01")


def test_it_says_what_it_is_and_that_it_is_healthy(client: Client) -> None:
    assert client.is_healthy()
    info = client.info()
    assert info.version == __version__
    (model,) = info.models
    assert (model.name, model.latent_channels, model.downsample_factor, model.dtype) == ("fake", 3, 8, "float32")


def test_what_is_no_image_or_no_latents_is_an_invalid_request(server: FakeServer, client: Client) -> None:
    for image in (b"", b"text", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(InvalidRequest):
            client.encode(image)
    with grpc.insecure_channel(server.target) as channel:
        stub = LatentCodecServiceStub(channel)
        for method, request in ((stub.Encode, pb.EncodeRequest()), (stub.Decode, pb.DecodeRequest())):
            with pytest.raises(grpc.RpcError) as caught:
                method(request)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_it_decodes_what_diffusion_made(client: Client) -> None:
    latents = Latents(np.zeros((2, 3, 2, 4), np.float16), scaled=True)
    assert client.decode_array(latents).shape == (2, 16, 32, 3)
    assert [image.size for image in client.decode(latents.split())] == [(32, 16)] * 2


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, TooLarge),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
    ],
)
def test_it_fails_on_request_and_then_goes_on(
    server: FakeServer, client: Client, code: grpc.StatusCode, kind: type[LatentwireError]
) -> None:
    server.fail_next(code, "on request", times=2)
    with pytest.raises(kind, match="on request"):
        client.info()
    with pytest.raises(kind, match="on request"):
        next(client.encode_stream([noise(8, 8)])).get()
    assert client.is_healthy()
    assert not issubclass(kind, Overloaded)
    assert client.encode(noise(8, 8)).kind is LatentKind.MODE
    assert server.calls == {"GetServerInfo": 1, "EncodeStream": 1, "Encode": 1}


def test_different_failures_come_in_the_order_of_the_requests(server: FakeServer, client: Client) -> None:
    server.fail_next(grpc.StatusCode.NOT_FOUND)
    server.fail_next(grpc.StatusCode.INTERNAL)
    codes = []
    for _ in range(2):
        with pytest.raises(LatentwireError) as caught:
            client.info()
        codes.append(caught.value.code)
    assert codes == [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL]


def test_stopping_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    with FakeServer() as server, Client(server.target) as client:
        stream = client.encode_stream([noise(8, 8)] * 20)
        next(stream)
        stream.close()
    for thread in set(threading.enumerate()) - before:
        thread.join()
        assert not thread.is_alive()


def test_two_fakes_live_side_by_side() -> None:
    with FakeServer() as one, FakeServer() as other:
        assert one.target != other.target
        with Client(one.target) as client:
            client.info()
        assert (one.calls.total(), other.calls.total()) == (1, 0)
