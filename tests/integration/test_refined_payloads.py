# SPDX-License-Identifier: Apache-2.0
"""Payloads with latents that a server fitted to their image: closer images, and the same bytes as in this process."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from latentwire_client import AsyncClient, Client, InvalidRequest
from latentwire_codec import LatentOptimisation, compress, load_autoencoder
from latentwire_codec.metrics.scores import psnr
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub
from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig
from tests.conftest import Pixels, Run

MOST = 12


@pytest.fixture(scope="module")
def refining(tiny_kl: Path) -> Iterator[str]:
    """The address of a server with the bundled model and `tiny`, and its own limit of iterations."""
    models = (ModelSource("f8c4", "f8c4"), ModelSource("tiny", str(tiny_kl)))
    with background(ServerConfig(models=models, device="cpu", port=0, max_refinement=MOST)) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def client(refining: str) -> Iterator[Client]:
    with Client(refining) as client:
        yield client


@pytest.fixture(scope="module")
def face(astronaut: Pixels) -> Pixels:
    """A photograph whose sides are no multiples of f."""
    return np.ascontiguousarray(astronaut[20:70, 180:257])


def psnr_of(client: Client, payload: bytes, image: Pixels) -> float:
    return psnr(image, client.decode_array(payload)[0].astype(np.uint8, copy=False))


@pytest.mark.parametrize("model", ["f8c4", "tiny"])
@pytest.mark.parametrize("quality", ["high", 1.0])
def test_a_refined_payload_is_the_one_that_this_process_makes(
    client: Client, tiny_kl: Path, face: Pixels, model: str, quality: str | float
) -> None:
    autoencoder = load_autoencoder(str(tiny_kl) if model == "tiny" else model, device="cpu")
    wanted = compress(face, model=autoencoder, quality=quality, optimisation=LatentOptimisation(3), name=model)
    assert client.compress(Image.fromarray(face), quality=quality, refinement=3, model=model) == wanted


def test_a_refined_payload_decodes_closer_and_is_hardly_larger(client: Client, face: Pixels) -> None:
    image = Image.fromarray(face)
    plain, refined = (client.compress(image, quality="medium", refinement=count) for count in (0, MOST))
    assert psnr_of(client, refined, face) > psnr_of(client, plain, face)
    assert len(refined) < 1.02 * len(plain)


def test_each_of_a_batch_of_raw_images_is_refined(refining: str, client: Client, astronaut: Pixels) -> None:
    images = np.stack([astronaut[:32, :40], astronaut[100:132, 100:140]])
    with grpc.insecure_channel(refining) as channel:
        tensor = pb.Tensor(dtype=pb.DTYPE_UINT8, shape=images.shape, data=images.tobytes())
        request = pb.EncodeRequest(
            image_tensor=pb.ImageTensor(tensor=tensor, layout=pb.IMAGE_LAYOUT_UINT8_NHWC),
            lat=pb.LatOutput(quality=pb.LAT_QUALITY_HIGH, refinement=2),
        )
        payloads = LatentCodecServiceStub(channel).Encode(request).lat.payloads
    assert list(payloads) == client.compress([images[0], images[1]], quality="high", refinement=2)
    assert list(payloads) != client.compress([images[0], images[1]], quality="high")


async def test_the_async_client_asks_for_the_same(refining: str, client: Client, face: Pixels) -> None:
    image = Image.fromarray(face)
    async with AsyncClient(refining) as other:
        one = await other.compress(image, refinement=2)
        items = [item.get() async for item in other.compress_stream([image], refinement=2)]
    assert [one] == items == [client.compress(image, refinement=2)]


def test_more_iterations_than_the_server_does_are_refused(client: Client, face: Pixels) -> None:
    assert client.info().limits.max_refinement == MOST
    with pytest.raises(InvalidRequest) as caught:
        client.compress(Image.fromarray(face), refinement=MOST + 1)
    assert caught.value.fields.keys() == {"lat.refinement"}
    for words in ("13 iterations", "at most 12", "serve --max-refinement"):
        assert words in str(caught.value)


def test_a_lossless_payload_is_not_refined(client: Client, face: Pixels) -> None:
    with pytest.raises(InvalidRequest, match="lossless keeps latents as they are"):
        client.compress(Image.fromarray(face), quality="lossless", refinement=1)


# The command


@pytest.fixture
def photo(face: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(face).save("face.png")
    return Path("face.png")


def test_the_command_passes_the_iterations_on(run: Run, photo: Path, refining: str, client: Client) -> None:
    assert run("compress", str(photo), "-o", "lat", "--refine", "4", "--server", refining)[0] == 0
    assert Path("lat/face.lat").read_bytes() == client.compress(photo, refinement=4)


def test_every_try_of_a_search_is_refined(run: Run, photo: Path, refining: str, client: Client, face: Pixels) -> None:
    found = []
    for count in ("0", "8"):
        arguments = ("--bytes", "190", "--refine", count, "--server", refining, "--overwrite")
        assert run("compress", str(photo), "-o", "lat", *arguments)[0] == 0
        found.append(Path("lat/face.lat").read_bytes())
    assert all(0.93 * 190 <= len(payload) <= 190 for payload in found)
    plain, refined = (psnr_of(client, payload, face) for payload in found)
    assert refined > plain


def test_the_command_says_what_the_server_refuses(run: Run, photo: Path, refining: str) -> None:
    status, _, err = run("compress", str(photo), "-o", "lat", "--refine", "13", "--server", refining)
    assert status == 1
    assert "refinement is 13 iterations; at most 12 are accepted (serve --max-refinement)" in err


def test_a_model_of_the_commands_own_has_no_limit(run: Run, photo: Path) -> None:
    beyond = str(ServerConfig.max_refinement + 1)
    Image.new("RGB", (8, 8), (200, 30, 60)).save(photo)
    assert run("compress", str(photo), "-o", "lat", "--refine", beyond, "--local")[0] == 0
