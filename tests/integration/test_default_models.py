# SPDX-License-Identifier: Apache-2.0
"""A request that names no model -> `f8c4`; for payloads `f8c32`, and the model that made the payload."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentwire_client import AsyncClient, Client, InvalidRequest, LatentSpaceMismatch
from latentwire_codec import compress, compress_latents, decompress, load_autoencoder
from latentwire_codec.lat.payload import Provenance
from latentwire_server.app import Server, background
from latentwire_server.config import ServerConfig
from tests.conftest import Pixels, Run


@pytest.fixture(scope="module")
def default_server() -> Iterator[Server]:
    with background(ServerConfig(port=0)) as running:
        yield running


@pytest.fixture(scope="module")
def client(default_server: Server) -> Iterator[Client]:
    with Client(f"127.0.0.1:{default_server.port}") as client:
        yield client


@pytest.fixture(scope="module")
def without_f8c32(target: str) -> Iterator[Client]:
    """A client of the shared server, which has `f8c4` and `tiny`."""
    with Client(target) as client:
        yield client


@pytest.fixture(scope="module")
def face(astronaut: Pixels) -> Pixels:
    return np.ascontiguousarray(astronaut[20:70, 180:257])


@pytest.fixture(scope="module")
def made_by(face: Pixels) -> dict[str, bytes]:
    """The payload of each bundled model."""
    return {name: compress(face, model=name) for name in ("f8c4", "f8c32")}


def test_without_options_both_bundled_models_are_served_and_f8c4_encodes(client: Client, face: Pixels) -> None:
    assert [model.name for model in client.info().models] == ["f8c4", "f8c32"]
    latents = client.encode(Image.fromarray(face))
    assert (latents.model, latents.values.shape) == ("f8c4", (1, 4, 7, 10))
    assert client.decode(latents).size == (77, 50)


def test_f8c32_compresses_in_calls_and_streams(client: Client, face: Pixels, made_by: dict[str, bytes]) -> None:
    image = Image.fromarray(face)
    payload = client.compress(image)
    assert payload == made_by["f8c32"] == compress(face)
    assert client.compress([image]) == [payload]
    assert client.compress(image, model="f8c4") == made_by["f8c4"]


async def test_the_asyncio_client_compresses_and_decompresses_alike(
    default_server: Server, face: Pixels, made_by: dict[str, bytes]
) -> None:
    async with AsyncClient(f"127.0.0.1:{default_server.port}") as client:
        payload = await client.compress(Image.fromarray(face))
        assert payload == made_by["f8c32"]
        np.testing.assert_array_equal(np.asarray(await client.decompress(payload)), decompress(payload))


def test_each_payload_is_decoded_by_the_model_that_made_it(client: Client, made_by: dict[str, bytes]) -> None:
    payloads = list(made_by.values())
    expected = [decompress(payload) for payload in payloads]
    assert not np.array_equal(expected[0], expected[1])
    for payload, image in zip(payloads, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(client.decompress(payload)), image)
    for image, streamed in zip(expected, client.decompress(payloads), strict=True):
        np.testing.assert_array_equal(np.asarray(streamed), image)


def test_a_payload_is_refused_by_a_model_of_another_space(client: Client, made_by: dict[str, bytes]) -> None:
    for name, other in (("f8c4", "f8c32"), ("f8c32", "f8c4")):
        with pytest.raises(LatentSpaceMismatch, match=f"the model that made them, '{name}'"):
            client.decompress(made_by[name], model=other)


def test_without_f8c32_the_first_model_compresses(
    without_f8c32: Client, face: Pixels, made_by: dict[str, bytes]
) -> None:
    assert without_f8c32.compress(Image.fromarray(face)) == made_by["f8c4"]
    with pytest.raises(LatentSpaceMismatch, match="'latentwire-f8c32@1'; the model's is 'latentwire-f8c4@3'"):
        without_f8c32.decompress(made_by["f8c32"])


@pytest.mark.parametrize("name", ["tiny", "", "another", "f8c4"])
def test_the_latent_space_finds_the_model_whatever_name_the_payload_gives(
    without_f8c32: Client, face: Pixels, tiny_kl: Path, name: str
) -> None:
    tiny = load_autoencoder(str(tiny_kl))
    payload = compress(face, model=tiny, name=name)
    np.testing.assert_array_equal(np.asarray(without_f8c32.decompress(payload)), decompress(payload, model=tiny))


def test_a_payload_of_unknown_space_goes_to_the_model_that_it_names_else_to_the_first(without_f8c32: Client) -> None:
    def size(name: str) -> tuple[int, int]:
        latents = np.ones((4, 3, 5), np.float32)
        return without_f8c32.decompress(compress_latents(latents, provenance=Provenance(model=name))).size

    assert {name: size(name) for name in ("tiny", "f8c4", "another", "")} == {
        "tiny": (20, 12), "f8c4": (40, 24), "another": (40, 24), "": (40, 24),
    }  # fmt: skip


def test_a_damaged_payload_is_refused_without_a_model_as_with_one(client: Client, made_by: dict[str, bytes]) -> None:
    for damaged in (b"", b"no payload", made_by["f8c32"][:20], made_by["f8c32"] + b"\0"):
        with pytest.raises(InvalidRequest) as without:
            client.decompress(damaged)
        with pytest.raises(InvalidRequest) as named:
            client.decompress(damaged, model="f8c32")
        assert str(without.value) == str(named.value)


@pytest.mark.parametrize("local", [False, True], ids=["served", "local"])
def test_the_commands_choose_alike(
    run: Run,
    client: Client,
    face: Pixels,
    made_by: dict[str, bytes],
    local: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    where = ("--local",) if local else ("--server", client.target)
    Image.fromarray(face).save("face.png")
    status, out, err = run("compress", "face.png", "-o", "lat", "--json", *where)
    assert (status, err) == (0, "")
    assert json.loads(out)["results"][0]["model"] == "f8c32"
    assert Path("lat/face.lat").read_bytes() == made_by["f8c32"]
    Path("lat/other.lat").write_bytes(made_by["f8c4"])
    assert run("decompress", "lat", "-o", "images", *where)[0] == 0
    for name, model in (("face", "f8c32"), ("other", "f8c4")):
        with Image.open(f"images/{name}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), decompress(made_by[model]))


def test_the_command_refuses_a_payload_for_the_wrong_model(
    run: Run, client: Client, made_by: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "face.lat").write_bytes(made_by["f8c32"])
    status, _, err = run(
        "decompress", str(tmp_path / "face.lat"), "-o", str(tmp_path), "--server", client.target, "--model", "f8c4"
    )
    assert status == 1
    assert "the latents' space is 'latentwire-f8c32@1'; the model's is 'latentwire-f8c4@3'" in err


def test_inspect_shows_the_model_and_its_channels(run: Run, made_by: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "face.lat").write_bytes(made_by["f8c32"])
    status, out, _ = run("inspect", str(tmp_path / "face.lat"), "--json")
    shown = json.loads(out)["results"][0]
    assert (status, shown["model"], shown["latent_shape"]) == (0, "f8c32", [32, 7, 10])
    assert shown["latent_space"] == load_autoencoder("f8c32").spec.latent_space


def test_a_decode_request_without_payloads_says_so(client: Client) -> None:
    import grpc

    from latentwire_proto.v1 import latent_codec_pb2 as pb
    from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub

    with grpc.insecure_channel(client.target) as channel, pytest.raises(grpc.RpcError, match="no payloads"):
        LatentCodecServiceStub(channel).Decode(pb.DecodeRequest(lat=pb.LatPayloads()))
