# SPDX-License-Identifier: Apache-2.0
"""`.lat` payloads through a server: the same bytes as in this process, and a name for each of their faults."""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from latentwire_client import (
    AsyncClient,
    Client,
    DataLoss,
    Execution,
    InvalidRequest,
    Latents,
    LatentSpaceMismatch,
    LatentwireError,
    UnsupportedVersion,
)
from latentwire_codec import compress, compress_latents, decompress, decompress_latents, load_autoencoder
from latentwire_codec.lat.payload import Provenance
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_core.container import read_header, unpack
from latentwire_core.errors import BitstreamError, ChecksumMismatch, Malformed, TrailingBytes, Truncated
from latentwire_core.errors import UnsupportedVersion as UnknownVersion
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub
from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig
from tests.conftest import Pixels

QUALITIES: list[str | float] = ["cache", "high", "medium", "low", "lossless", 0.3]


@pytest.fixture(scope="module")
def client(target: str) -> Iterator[Client]:
    with Client(target, model="tiny") as client:
        yield client


@pytest.fixture(scope="module")
def autoencoder(tiny_kl: Path) -> Autoencoder:
    return load_autoencoder(str(tiny_kl))


@pytest.fixture(scope="module")
def face(astronaut: Pixels) -> Pixels:
    """A photograph whose sides are no multiples of f = 4."""
    return np.ascontiguousarray(astronaut[20:70, 180:257])


@pytest.fixture(scope="module")
def payload(client: Client, face: Pixels) -> bytes:
    return client.compress(Image.fromarray(face))


def damaged(payload: bytes) -> dict[type[BitstreamError], bytes]:
    """One payload for each fault."""
    middle = len(payload) // 2
    return {
        UnknownVersion: payload[:4] + b"\x63" + payload[5:],
        Truncated: payload[:-1],
        TrailingBytes: payload + b"\0",
        ChecksumMismatch: payload[:middle] + bytes([payload[middle] ^ 1]) + payload[middle + 1 :],
        Malformed: b"no such file",
    }


FAULTS: dict[type[BitstreamError], tuple[type[LatentwireError], grpc.StatusCode, str]] = {
    UnknownVersion: (UnsupportedVersion, grpc.StatusCode.FAILED_PRECONDITION, "version 99; this release reads"),
    Truncated: (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT, "its header announces"),
    TrailingBytes: (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT, "its header announces"),
    ChecksumMismatch: (DataLoss, grpc.StatusCode.DATA_LOSS, "was changed"),
    Malformed: (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT, "begins with"),
}


# Answers


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_payload_is_the_one_that_this_process_makes(
    client: Client, autoencoder: Autoencoder, face: Pixels, quality: str | float
) -> None:
    made_there = client.compress(Image.fromarray(face), quality=quality)
    assert made_there == compress(face, model=autoencoder, quality=quality, name="tiny")
    np.testing.assert_array_equal(np.asarray(client.decompress(made_there)), decompress(made_there, model=autoencoder))


def test_the_default_quality_is_cache(client: Client, face: Pixels, payload: bytes) -> None:
    assert payload == client.compress(Image.fromarray(face), quality="cache")


def test_a_payload_says_where_it_comes_from(client: Client, payload: bytes) -> None:
    header = read_header(payload)
    (tiny,) = (model for model in client.info().models if model.name == "tiny")
    assert (header.model, header.image_size, header.shape) == ("tiny", (50, 77), (4, 13, 20))
    assert (header.latent_space, header.weights_digest) == (tiny.latent_space, tiny.weights_digest[:16])


def test_lossless_is_the_float16_mode_bit_for_bit(client: Client, face: Pixels) -> None:
    image = Image.fromarray(face)
    kept, _ = decompress_latents(client.compress(image, quality="lossless"))
    sent = client.encode(image, dtype="float16").values[0]
    assert kept.dtype == np.float16
    assert kept.tobytes() == sent.tobytes()


def test_a_size_scales_and_crops_first(client: Client, face: Pixels) -> None:
    made = client.compress(Image.fromarray(face), size=(16, 24))
    assert read_header(made).image_size == (16, 24)
    assert client.decompress(made).size == (24, 16)


def test_a_batch_of_raw_images_has_a_payload_for_each(target: str, client: Client, astronaut: Pixels) -> None:
    images = np.stack([astronaut[:32, :40], astronaut[100:132, 100:140]])
    with grpc.insecure_channel(target) as channel:
        stub = LatentCodecServiceStub(channel)
        tensor = pb.Tensor(dtype=pb.DTYPE_UINT8, shape=images.shape, data=images.tobytes())
        request = pb.EncodeRequest(
            model="tiny",
            image_tensor=pb.ImageTensor(tensor=tensor, layout=pb.IMAGE_LAYOUT_UINT8_NHWC),
            lat=pb.LatOutput(),
        )
        payloads = stub.Encode(request).lat
        pixels = stub.Decode(pb.DecodeRequest(model="tiny", lat=payloads)).image_tensor.tensor
    assert list(payloads.payloads) == client.compress([images[0], images[1]])
    alone = np.stack([np.asarray(client.decompress(each)) for each in payloads.payloads])
    np.testing.assert_array_equal(np.frombuffer(pixels.data, np.uint8).reshape(pixels.shape), alone)


def test_payloads_decode_to_arrays_and_files(client: Client, payload: bytes) -> None:
    pixels = np.asarray(client.decode(payload))
    np.testing.assert_array_equal(client.decode_array(payload)[0], pixels)
    floats = client.decode_array(payload, dtype="float32")
    assert floats.shape == (1, 3, 50, 77)
    (file,) = client.decode_files(payload, image_format="webp", quality=50)
    assert file.startswith(b"RIFF")


def test_lists_and_streams_mix_payloads_and_latents(client: Client, face: Pixels, payload: bytes) -> None:
    image = Image.fromarray(face)
    assert client.compress([image, image]) == [payload, payload]
    first, second = client.decode([payload, client.encode(image)])
    assert first.size == second.size == (77, 50)
    (again,) = client.decompress([payload])
    assert again.tobytes() == first.tobytes()


def test_the_time_for_the_payload_counts_as_coding(target: str, face: Pixels, payload: bytes) -> None:
    told: list[Execution] = []
    with Client(target, model="tiny", on_execution=told.append) as client:
        client.decompress(client.compress(Image.fromarray(face)))
    assert [each.model for each in told] == ["tiny", "tiny"]
    assert all(each.coding_s > 0 for each in told)


async def test_the_async_client_gives_the_same(target: str, face: Pixels, payload: bytes) -> None:
    image = Image.fromarray(face)
    async with AsyncClient(target, model="tiny") as client:
        assert await client.compress(image) == payload
        assert await client.compress([image], quality="cache") == [payload]
        one = await client.decompress(payload)
        (same,) = await client.decompress([payload])
        items = [item.get() async for item in client.compress_stream([image, image])]
    assert items == [payload, payload]
    assert one.size == (77, 50)
    assert one.tobytes() == same.tobytes()


# Refusals


def test_there_is_a_payload_for_every_fault() -> None:
    assert set(FAULTS) == set(BitstreamError.__subclasses__())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_damaged_payload_is_refused_by_the_name_of_its_fault(
    client: Client, payload: bytes, fault: type[BitstreamError]
) -> None:
    broken = damaged(payload)[fault]
    with pytest.raises(fault):
        unpack(broken)
    kind, code, words = FAULTS[fault]
    with pytest.raises(kind, match=words) as caught:
        client.decompress(broken)
    assert type(caught.value) is kind
    assert caught.value.code is code
    if isinstance(caught.value, InvalidRequest):
        assert set(caught.value.fields) == {"lat.payloads"}


def test_damaged_payloads_of_a_stream_fail_alone(client: Client, payload: bytes) -> None:
    broken = damaged(payload)
    items = list(client.decode_stream([payload, *broken.values(), payload]).ordered())
    assert [type(item.error) for item in items[1:-1]] == [FAULTS[fault][0] for fault in broken]
    assert items[0].get().tobytes() == items[-1].get().tobytes()


def test_a_broken_image_among_good_ones_has_no_payload(client: Client, face: Pixels, payload: bytes) -> None:
    image = Image.fromarray(face)
    first, broken, last = client.compress_stream([image, b"junk", image]).ordered()
    assert first.get() == last.get() == payload
    assert isinstance(broken.error, InvalidRequest)


def test_a_payload_of_another_space_is_refused(client: Client, target: str, payload: bytes) -> None:
    with pytest.raises(LatentSpaceMismatch, match=r"unnamed, of weights.* the model that made them, 'tiny'"):
        client.decompress(payload, model="f8c4")
    named = compress_latents(np.zeros((4, 2, 2), np.float32), provenance=Provenance(latent_space="sd1"))
    with pytest.raises(LatentSpaceMismatch, match="'sd1'"):
        client.decompress(named)
    other = compress_latents(np.zeros((4, 2, 2), np.float32), provenance=Provenance(weights_digest="ab" * 32))
    with pytest.raises(LatentSpaceMismatch, match="abababababab"):
        client.decompress(other)


def test_a_payload_of_unknown_origin_and_size_is_decoded_whole(client: Client) -> None:
    made = compress_latents(np.ones((4, 3, 5), np.float32), 0.5, units=(1.0,) * 4)
    assert client.decompress(made).size == (20, 12)


@pytest.mark.parametrize(
    ("shape", "image_size", "words"),
    [
        ((3, 2, 2), (0, 0), r"\(B, 4, h, w\) is needed"),
        ((4, 2, 2), (9, 8), "height is 9; latents of this shape hold 5 to 8 pixels"),
        ((4, 2, 2), (8, 4), "width is 4; latents of this shape hold 5 to 8 pixels"),
    ],
)
def test_a_header_that_does_not_fit_the_model_is_refused(
    client: Client, shape: tuple[int, int, int], image_size: tuple[int, int], words: str
) -> None:
    made = compress_latents(np.zeros(shape, np.float32), provenance=Provenance(image_size=image_size))
    with pytest.raises(InvalidRequest, match=words):
        client.decompress(made)


@pytest.mark.parametrize("quality", ["best", 0, -1.0, float("nan"), float("inf")])
def test_a_quality_that_is_none_is_refused_before_it_is_sent(client: Client, quality: str | float) -> None:
    with pytest.raises(ValueError, match="it must be lossless, cache, high, medium, low, or steps in units"):
        client.compress(b"", quality=quality)


def test_an_array_of_several_images_is_no_image_to_compress(client: Client) -> None:
    images = np.zeros((3, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="3 payloads; compress one image at a time, or a list"):
        client.compress(images)
    assert len(client.compress(list(images))) == 3
    assert client.compress(images[:1]) == client.compress(images[0])


async def test_any_sequence_of_payloads_is_decoded_in_its_order(client: Client, target: str, payload: bytes) -> None:
    latents = client.encode(Image.new("RGB", (24, 16)), model="tiny")
    async with AsyncClient(target) as other:
        sequences: list[Sequence[Latents | bytes]] = [deque([payload, latents]), (payload, latents)]
        for many in sequences:
            sizes = [image.size for image in client.decode(many, model="tiny")]
            assert sizes[1] == (24, 16) != sizes[0]
            assert [image.size for image in await other.decode(many, model="tiny")] == sizes


def test_what_is_no_payload_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(TypeError, match="no option 'kind'"):
        client.compress(b"", kind="mode")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="latents are a ndarray; Latents"):
        client.decode_array(np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"latents are a PosixPath;"):
        client.decode(Path("photo.lat"))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"latents are a str; .*, the bytes of a \.lat payload"):
        client.decompress("photo.lat")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not one str"):
        client.decode_stream("photo.lat")  # type: ignore[arg-type]
    for iterations in (2.5, "3", -1):
        with pytest.raises(ValueError, match=f"refinement is {iterations!r}; it must be a number of iterations"):
            client.compress(b"", refinement=iterations)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not one bytes"):
        client.decode_stream(b"one payload")  # type: ignore[arg-type]


# Limits

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def small(tiny_kl: Path) -> Iterator[LatentCodecServiceStub]:
    """A stub of a server with small limits, without the client's own checks."""
    models = (ModelSource("tiny", str(tiny_kl)),)
    config = ServerConfig(models=models, port=0, max_message_mib=1, max_side=1024, max_batch=40)
    with background(config) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield LatentCodecServiceStub(channel)


def of_shape(channels: int, height: int, width: int) -> bytes:
    return compress_latents(np.zeros((channels, height, width), np.float32))


@pytest.mark.parametrize(
    ("payloads", "code", "words"),
    [
        ([of_shape(4, 1, 257)], EXHAUSTED, ["1028x4", "1024", "--max-side"]),
        ([of_shape(4, 200, 200)], EXHAUSTED, ["800x800", "349525", "--max-message-mib"]),
        ([of_shape(4, 2, 2)] * 41, EXHAUSTED, ["41 images", "40", "--max-batch"]),
        ([of_shape(4, 80, 80)] * 4, EXHAUSTED, ["4 images of 320x320", "409600", "349525", "send fewer at once"]),
        ([of_shape(4, 2, 2), of_shape(4, 2, 3)], INVALID, ["payload 1", "(4, 2, 3)", "(4, 2, 2)", "stream"]),
        ([], INVALID, ["no payloads"]),
        ([b""], INVALID, ["ends after 0 bytes"]),
    ],
)
def test_payloads_over_a_limit_are_refused_before_they_are_decoded(
    small: LatentCodecServiceStub, payloads: list[bytes], code: grpc.StatusCode, words: list[str]
) -> None:
    output = pb.ImageFileOutput(format=pb.IMAGE_FORMAT_JPEG)
    with pytest.raises(grpc.RpcError) as caught:
        small.Decode(pb.DecodeRequest(lat=pb.LatPayloads(payloads=payloads), image_files=output))
    error: grpc.Call = caught.value  # type: ignore[assignment]
    assert error.code() is code
    assert [word for word in words if word not in (error.details() or "")] == [], error.details()
    assert small.Decode(pb.DecodeRequest(lat=pb.LatPayloads(payloads=[of_shape(4, 2, 2)]))).HasField("image_tensor")
