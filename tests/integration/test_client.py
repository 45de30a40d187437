# SPDX-License-Identifier: Apache-2.0
"""The clients against real servers: where they run, what they survive."""

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from latentwire_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    ImageInput,
    InvalidRequest,
    Latents,
    LatentSpaceMismatch,
    LatentwireError,
    Limits,
    Retry,
    Timeout,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from latentwire_client.testing import FakeServer
from latentwire_server.app import Server, background
from latentwire_server.config import ModelSource, ServerConfig
from tests.conftest import Pixels


@pytest.fixture(scope="module")
def client(target: str) -> Iterator[Client]:
    with Client(target) as client:
        yield client


@pytest.fixture(scope="module")
def served(start_server: Callable[..., AbstractContextManager[tuple[object, str]]]) -> Iterator[str]:
    """The address of a server in a process of its own."""
    with start_server() as (_, target):
        yield target


@pytest.fixture
def photo(tmp_path: Path, astronaut: Pixels) -> Path:
    path = tmp_path / "photo.jpg"
    Image.fromarray(astronaut[:100, :77]).save(path, quality=95)
    return path


def test_every_kind_of_image_input_encodes(client: Client, photo: Path, astronaut: Pixels) -> None:
    crop = np.ascontiguousarray(astronaut[:64, :64])
    floats = crop.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
    with Image.open(photo) as opened:
        for image in (str(photo), photo, photo.read_bytes(), opened):
            latents = client.encode(image, dtype="float32")
            assert latents.values.shape == (1, 4, 13, 10)
            assert latents.image_size == (100, 77)
            assert client.decode(latents).size == (77, 100)
    from_uint8 = client.encode(crop, dtype="float32").values
    np.testing.assert_allclose(client.encode(floats, dtype="float32").values, from_uint8, atol=1e-5)
    np.testing.assert_array_equal(client.encode(Image.fromarray(crop), dtype="float32").values, from_uint8)


def test_a_pil_image_keeps_its_alpha_orientation_and_depth(client: Client, astronaut: Pixels) -> None:
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    white = Image.new("RGB", (16, 16), "white")
    np.testing.assert_array_equal(client.encode(clear).values, client.encode(white).values)
    turned = Image.fromarray(astronaut[:16, :32])
    turned.getexif()[0x0112] = 6
    assert client.encode(turned).image_size == (32, 16)


def test_a_size_scales_and_crops_an_image_file(client: Client, photo: Path) -> None:
    latents = client.encode(photo, size=(64, 128))
    assert latents.image_size == (64, 128)
    assert latents.values.shape == (1, 4, 8, 16)


def test_every_dtype_arrives(client: Client, astronaut: Pixels) -> None:
    crop = np.ascontiguousarray(astronaut[:64, :64])
    exact = client.encode(crop, dtype="float32").values
    for dtype, arrives, tolerance in (("float16", np.float16, 4e-3), ("bfloat16", np.float32, 3e-2)):
        values = client.encode(crop, dtype=dtype).values
        assert values.dtype == arrives
        np.testing.assert_allclose(values, exact, atol=tolerance)
    images = client.decode_array(client.encode(crop), dtype="float16")
    assert images.dtype == np.float16
    assert images.shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("image_format", "magic"), [("png", b"\x89PNG"), ("jpeg", b"\xff\xd8"), ("webp", b"RIFF"), ("avif", b"\0\0\0")]
)
def test_every_image_format_comes_back(client: Client, photo: Path, image_format: str, magic: bytes) -> None:
    (file,) = client.decode_files(client.encode(photo), image_format=image_format)
    assert file.startswith(magic)


def test_latents_survive_their_file(client: Client, photo: Path, tmp_path: Path) -> None:
    moments = client.encode(photo, kind="moments", dtype="float32")
    loaded = Latents.load(moments.save(tmp_path / "photo.safetensors"))
    assert loaded.logvar is not None
    assert moments.logvar is not None
    np.testing.assert_array_equal(loaded.values, moments.values)
    np.testing.assert_array_equal(loaded.logvar, moments.logvar)
    for name in ("kind", "scaled", "image_size", "model", "latent_space", "weights_digest"):
        assert getattr(loaded, name) == getattr(moments, name)
    assert client.decode(loaded).tobytes() == client.decode(moments).tobytes()


def test_a_list_comes_back_in_order_and_raises_its_first_failure(client: Client, photo: Path) -> None:
    images = [np.zeros((8 * n, 8, 3), np.uint8) for n in range(1, 20)]
    latents = client.encode(images)
    assert [item.values.shape[2] for item in latents] == list(range(1, 20))
    assert [image.height for image in client.decode(latents)] == [8 * n for n in range(1, 20)]
    with pytest.raises(InvalidRequest):
        client.encode([photo, b"broken"])
    with pytest.raises(FileNotFoundError):
        client.encode([photo, "missing.png"])


def test_a_stream_reads_its_source_only_as_far_as_its_limit(target: str) -> None:
    taken = 0

    def source() -> Iterator[Pixels]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield np.zeros((8, 8, 3), np.uint8)

    with Client(target, limits=Limits(in_flight=3)) as client:
        stream = client.encode_stream(source())
        for answered in range(1, 11):
            next(stream)
            assert taken <= answered + 3
        stream.close()
    assert taken < 20


def test_a_bad_item_does_not_end_a_stream(client: Client, photo: Path) -> None:
    images: list[ImageInput] = [photo, b"broken", "missing.png", np.zeros((3, 3)), photo]
    items = sorted(client.encode_stream(images), key=lambda item: item.index)
    kinds = [type(item.error) for item in items]
    assert kinds == [type(None), InvalidRequest, FileNotFoundError, ValueError, type(None)]
    assert [item.source is image for item, image in zip(items, images, strict=True)] == [True] * 5


def test_latents_of_another_space_are_refused(client: Client, photo: Path) -> None:
    from dataclasses import replace

    with pytest.raises(LatentSpaceMismatch, match="sd1"):
        client.decode(replace(client.encode(photo), latent_space="sd1"))


def test_latents_of_another_model_are_refused_also_where_its_space_has_no_name(
    client: Client, astronaut: Pixels
) -> None:
    crop = np.ascontiguousarray(astronaut[:64, :64])
    for maker, other in (("f8c4", "tiny"), ("tiny", "f8c4")):
        latents = client.encode(crop, model=maker)
        assert client.decode(latents, model=maker).size == (64, 64)
        with pytest.raises(LatentSpaceMismatch, match="decode them with the model that made them"):
            client.decode(latents, model=other)
    unknown = Latents(values=np.zeros((1, 4, 8, 8), np.float32))  # as a diffusion model makes them
    assert [client.decode(unknown, model=model).size for model in ("f8c4", "tiny")] == [(64, 64), (32, 32)]


def test_a_request_over_the_message_limit_says_what_to_raise(tiny_kl: Path) -> None:
    models = (ModelSource("tiny", str(tiny_kl)),)
    with background(ServerConfig(models=models, port=0, max_message_mib=1)) as server:
        target = f"127.0.0.1:{server.port}"
        with Client(target) as client, pytest.raises(TooLarge, match="--max-message-mib"):
            client.encode(np.zeros((1024, 1024, 3), np.uint8))


def test_errors_survive_pickling(client: Client) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.encode(b"broken")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(copy, InvalidRequest)
    assert (copy.details, copy.request_id, copy.fields) == (
        caught.value.details, caught.value.request_id, caught.value.fields,
    )  # fmt: skip
    assert list(copy.fields) == ["image_file"]


def test_nobody_at_the_address_is_unavailable_and_names_the_address() -> None:
    with Client("127.0.0.1:1", retry=Retry(attempts=2, initial_backoff_s=0.01)) as client:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
            client.info()
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
            next(client.encode_stream([b""]))


def test_unavailable_is_tried_again_also_with_a_large_request() -> None:
    with FakeServer() as server, Client(server.target, retry=Retry(initial_backoff_s=0.01)) as client:
        server.fail_next(grpc.StatusCode.UNAVAILABLE, times=2)
        client.encode(np.zeros((1024, 1024, 3), np.uint8))  # 3 MiB: over gRPC's own retry buffer
        assert server.calls["Encode"] == 3
        server.fail_next(grpc.StatusCode.UNAVAILABLE, times=2)
        assert [item.index for item in client.encode_stream([np.zeros((8, 8, 3), np.uint8)])] == [0]
        assert server.calls["EncodeStream"] == 3


def test_other_failures_are_not_tried_again() -> None:
    with FakeServer() as server, Client(server.target) as client:
        server.fail_next(grpc.StatusCode.INTERNAL)
        with pytest.raises(LatentwireError):
            client.encode(np.zeros((8, 8, 3), np.uint8))
        assert server.calls["Encode"] == 1


def test_a_timeout_ends_a_call(server: Server, target: str, astronaut: Pixels) -> None:
    with Client(target, timeout=Timeout(call_s=0.001)) as client, pytest.raises(DeadlineExceeded):
        client.encode(astronaut)


def test_a_timeout_of_a_stream_s_item_fails_that_item_alone(target: str, astronaut: Pixels) -> None:
    with Client(target, timeout=Timeout(stream_item_s=1e-6)) as client:
        (item,) = client.encode_stream([astronaut])
        assert isinstance(item.error, DeadlineExceeded)


def test_a_token_is_asked_for_and_health_stays_open(tiny_kl: Path) -> None:
    models = (ModelSource("tiny", str(tiny_kl)),)
    with background(ServerConfig(models=models, port=0, token="s3cret")) as server:
        target = f"127.0.0.1:{server.port}"
        for token in (None, "wrong"):
            with Client(target, token=token) as client:
                assert client.is_healthy()
                with pytest.raises(Unauthenticated):
                    client.info()
                with pytest.raises(Unauthenticated):
                    next(client.encode_stream([b""]))
        with Client(target, token="s3cret") as client:
            assert client.info().models[0].name == "tiny"


@pytest.mark.parametrize("before", ["fresh", "used"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_client_works_in_data_loader_workers(served: str, method: str, before: str) -> None:
    script = Path(__file__).with_name("load_with_workers.py")
    command = [sys.executable, str(script), served, method, before]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str([[2, 4, 2, 2]] * 4)] * 2


def test_both_clients_work_inside_a_running_event_loop(target: str, client: Client, astronaut: Pixels) -> None:
    crop = np.ascontiguousarray(astronaut[:64, :64])

    async def notebook_cell() -> None:
        async with AsyncClient(target) as asynchronous:
            latents = await asynchronous.encode(crop)
            np.testing.assert_array_equal(client.encode(crop).values, latents.values)
            assert (await asynchronous.decode(latents)).size == (64, 64)
            assert [image.size for image in await asynchronous.decode([latents] * 3)] == [(64, 64)] * 3
            assert len(await asynchronous.encode([crop] * 20)) == 20
            assert (await asynchronous.decode_files(latents))[0].startswith(b"\x89PNG")
            assert await asynchronous.is_healthy()
            assert (await asynchronous.info()).version

    asyncio.run(notebook_cell())


def test_one_async_client_serves_several_event_loops(target: str) -> None:
    client = AsyncClient(target)
    for _ in range(3):
        assert asyncio.run(client.info()).models[0].name == "f8c4"


def test_an_async_stream_survives_bad_items(target: str, photo: Path) -> None:
    async def run() -> list[type]:
        async with AsyncClient(target) as client:
            items = [item async for item in client.encode_stream([photo, b"broken", "missing.png", photo])]
        return [type(item.error) for item in sorted(items, key=lambda item: item.index)]

    assert asyncio.run(run()) == [type(None), InvalidRequest, FileNotFoundError, type(None)]


def test_the_async_client_tries_again_when_unavailable() -> None:
    async def run(target: str) -> None:
        async with AsyncClient(target, retry=Retry(initial_backoff_s=0.01)) as client:
            await client.encode(np.zeros((1024, 1024, 3), np.uint8))
            assert [item.index async for item in client.encode_stream([np.zeros((8, 8, 3), np.uint8)])] == [0]

    with FakeServer() as server:
        server.fail_next(grpc.StatusCode.UNAVAILABLE, times=2)
        asyncio.run(run(server.target))
        assert server.calls["Encode"] == 3
