# SPDX-License-Identifier: Apache-2.0
"""A VAE of latent vectors, served from a folder like any other: images of one size, framed files, clear refusals."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentwire_client import Client, InvalidRequest, Latents, LatentSpaceMismatch
from latentwire_codec import decompress, load_autoencoder
from latentwire_codec.images.geometry import resize_to_cover
from latentwire_codec.metrics.scores import psnr
from latentwire_codec.networks.pipeline_vae import AutoencoderVectorVAE
from latentwire_core.container import read_header
from latentwire_core.draws import Draws
from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_train.data.crops import Cover
from tests.conftest import Pixels, Run

SIDE, DIM = 32, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small VectorVAE that blurs, with some noise on its weights."""
    torch.manual_seed(0)
    vae = AutoencoderVectorVAE(
        image_size=SIDE, latent_dim=DIM, width=4, latent_space="faces@1",
        latents_mean=[0.1 * n for n in range(DIM)], latents_std=[1.0 + n for n in range(DIM)],
    )  # fmt: skip
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape))
    path = tmp_path_factory.mktemp("vector") / "faces"
    vae.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def address(folder: Path, tiny_kl: Path) -> Iterator[str]:
    models = (ModelSource("faces", str(folder)), ModelSource("tiny", str(tiny_kl)))
    with background(ServerConfig(models=models, port=0)) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


@pytest.fixture(scope="module")
def faces(astronaut: Pixels) -> Pixels:
    """Three images of the model's size, uint8 (3,32,32,3)."""
    return np.stack([astronaut[y : y + SIDE, 200 : 200 + SIDE] for y in (60, 120, 180)])


def png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# Spec


def test_the_server_says_what_size_it_takes(client: Client) -> None:
    faces, tiny = client.info().models
    assert (faces.class_name, faces.latent_space) == ("AutoencoderVectorVAE", "faces@1")
    assert (faces.fixed_size, faces.downsample_factor, faces.latent_channels) == ((SIDE, SIDE), SIDE, DIM)
    assert len(faces.scale) == len(faces.shift) == DIM
    assert (faces.config["image_size"], faces.config["latent_dim"]) == (SIDE, DIM)
    assert tiny.fixed_size is None


# Files


@pytest.mark.parametrize(("height", "width"), [(32, 32), (100, 77), (33, 500), (1, 1), (1, 64), (31, 16)])
def test_a_file_of_any_size_is_framed_as_in_training(
    client: Client, astronaut: Pixels, height: int, width: int
) -> None:
    image = np.ascontiguousarray(astronaut[:height, :width])
    latents = client.encode(png(image), dtype="float32")
    assert latents.values.shape == (1, DIM, 1, 1)
    assert latents.image_size == (SIDE, SIDE)
    trained_on = Cover(SIDE)(image, Draws(seed=0, purpose=0, n=0))
    np.testing.assert_array_equal(latents.values, client.encode(trained_on, dtype="float32").values)
    assert client.decode(latents).size == (SIDE, SIDE)


def test_a_photograph_is_recognised_in_what_comes_back(client: Client, faces: Pixels) -> None:
    for face in faces:
        assert psnr(face, np.asarray(client.decode(client.encode(png(face))))) > 10


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_image_files_come_back(client: Client, faces: Pixels, image_format: str) -> None:
    for file in client.decode_files(client.encode(faces), image_format=image_format):
        with Image.open(io.BytesIO(file)) as image:
            assert image.size == (SIDE, SIDE)


def test_a_stream_goes_on_after_a_bad_file(client: Client, astronaut: Pixels) -> None:
    files = [png(astronaut[: 40 + 9 * n]) for n in range(5)]
    files[2] = b"not an image"
    items = list(client.encode_stream(files).ordered())
    assert [item.error is None for item in items] == [True, True, False, True, True]
    decoded = client.decode([item.get() for item in items if item.error is None])
    assert [image.size for image in decoded] == [(SIDE, SIDE)] * 4


def test_its_own_size_may_be_asked_for(client: Client, astronaut: Pixels) -> None:
    file = png(astronaut)
    asked, unasked = client.encode(file, size=(SIDE, SIDE)), client.encode(file)
    np.testing.assert_array_equal(asked.values, unasked.values)


# Tensors


def test_an_image_is_encoded_and_decoded_bitwise_the_same_alone_or_with_others(client: Client, faces: Pixels) -> None:
    latents = client.encode(faces, kind="moments", dtype="float32")
    images = client.decode_array(latents, dtype="float32")
    assert latents.values.shape == (3, DIM, 1, 1)
    assert images.shape == (3, 3, SIDE, SIDE)
    for index, face in enumerate(faces):
        alone = client.encode(face, kind="moments", dtype="float32")
        assert alone.logvar is not None
        assert latents.logvar is not None
        np.testing.assert_array_equal(alone.values[0], latents.values[index])
        np.testing.assert_array_equal(alone.logvar[0], latents.logvar[index])
        np.testing.assert_array_equal(client.decode_array(alone, dtype="float32")[0], images[index])


def test_floats_are_taken_as_well(client: Client, faces: Pixels) -> None:
    floats = faces.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    expected = client.encode(faces, dtype="float32").values
    np.testing.assert_allclose(client.encode(floats, dtype="float32").values, expected, atol=1e-5)


def test_a_sample_is_the_same_here_and_on_the_server(client: Client, faces: Pixels) -> None:
    moments = client.encode(faces, kind="moments", dtype="float32")
    sampled = client.encode(faces, kind="sample", seeds=[4, 5, 6], dtype="float32")
    np.testing.assert_allclose(moments.sample([4, 5, 6]).values, sampled.values, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(sampled.values, moments.values)


def test_scaled_latents_are_those_of_mean_0_and_deviation_1_of_each_dimension(client: Client, faces: Pixels) -> None:
    raw = client.encode(faces, dtype="float32")
    scaled = client.encode(faces, scaled=True, dtype="float32")
    mean, std = (np.array([start + step * n for n in range(DIM)]) for start, step in ((0.0, 0.1), (1.0, 1.0)))
    expected = (raw.values[:, :, 0, 0] - mean) / std
    np.testing.assert_allclose(scaled.values[:, :, 0, 0], expected, rtol=1e-4, atol=1e-5)
    decoded, same = client.decode_array(raw, dtype="float32"), client.decode_array(scaled, dtype="float32")
    np.testing.assert_allclose(same, decoded, atol=1e-4)


def test_latents_that_nobody_encoded_can_be_decoded(client: Client) -> None:
    drawn = Latents(np.random.default_rng(0).standard_normal((4, DIM, 1, 1)).astype(np.float32))
    assert client.decode_array(drawn).shape == (4, SIDE, SIDE, 3)


def test_latents_survive_their_file(client: Client, astronaut: Pixels, tmp_path: Path) -> None:
    latents = client.encode(png(astronaut), kind="moments", dtype="float32")
    loaded = Latents.load(latents.save(tmp_path / "face.safetensors"))
    assert (loaded.image_size, loaded.latent_space) == ((SIDE, SIDE), "faces@1")
    assert client.decode(loaded).tobytes() == client.decode(latents).tobytes()


# Refusals


@pytest.mark.parametrize(
    "shape", [(64, 64, 3), (32, 64, 3), (2, 31, 32, 3), (1, 1, 3), (3, 64, 64), (2, 3, 32, 33)], ids=str
)
def test_a_tensor_of_another_size_is_refused(client: Client, shape: tuple[int, ...]) -> None:
    image = np.zeros(shape, np.uint8 if shape[-1] == 3 else np.float32)
    height, width = shape[-3:-1] if shape[-1] == 3 else shape[-2:]
    with pytest.raises(InvalidRequest, match=f"image tensor is {width}x{height}; this model takes 32x32 only"):
        client.encode(image)


@pytest.mark.parametrize("size", [(64, 64), (32, 31), (1, 32)])
def test_another_target_size_is_refused(client: Client, astronaut: Pixels, size: tuple[int, int]) -> None:
    message = f"target_size is {size[1]}x{size[0]}; this model takes 32x32 only, leave it out"
    with pytest.raises(InvalidRequest, match=message):
        client.encode(png(astronaut), size=size)


@pytest.mark.parametrize("shape", [(1, DIM, 2, 2), (1, DIM, 1, 2), (1, DIM + 1, 1, 1), (2, 1, 1, DIM)], ids=str)
def test_latents_of_another_shape_are_refused(client: Client, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match=r"\(B, 6, 1, 1\) is needed"):
        client.decode_array(Latents(np.zeros(shape, np.float32)))


def test_an_image_size_that_it_does_not_make_is_refused(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="height is 31; latents of this shape hold 32 pixels"):
        client.decode_array(Latents(np.zeros((1, DIM, 1, 1), np.float32), image_size=(31, SIDE)))


def test_its_latents_and_those_of_another_model_are_told_apart(client: Client, faces: Pixels) -> None:
    with pytest.raises(LatentSpaceMismatch):
        client.decode(client.encode(faces[0]), model="tiny")
    with pytest.raises(LatentSpaceMismatch):
        client.decode(client.encode(faces[0], model="tiny"), model="faces")


def test_payloads_hold_vectors_too(client: Client, folder: Path, faces: Pixels) -> None:
    model = load_autoencoder(str(folder))
    payload = client.compress(faces[0], model="faces", quality="lossless")
    assert read_header(payload).shape == (DIM, 1, 1)
    assert np.array_equal(np.asarray(client.decompress(payload, model="faces")), decompress(payload, model=model))
    with pytest.raises(LatentSpaceMismatch):
        client.decompress(payload, model="tiny")


# The command


@pytest.fixture
def photo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, astronaut: Pixels) -> str:
    """A photograph in the folder in which the command runs."""
    monkeypatch.setenv("LATENTWIRE_SERVER", address)
    monkeypatch.chdir(tmp_path)
    Path("photo.png").write_bytes(png(astronaut[:200, :300]))
    return "photo.png"


@pytest.mark.usefixtures("photo")
def test_info_shows_the_size(run: Run) -> None:
    status, out, _ = run("info")
    assert status == 0
    assert "AutoencoderVectorVAE" in out
    assert "32x32" in out
    assert json.loads(run("info", "--json")[1])["models"][0]["fixed_size"] == [SIDE, SIDE]


def test_encode_and_decode_write_files(run: Run, photo: str) -> None:
    status, out, _ = run("encode", photo, "-o", "latents", "--json")
    assert status == 0
    (result,) = json.loads(out)["results"]
    assert (result["width"], result["height"], result["latent_shape"]) == (SIDE, SIDE, [DIM, 1, 1])
    assert run("decode", "latents", "-o", "images")[0] == 0
    with Image.open("images/photo.png") as image:
        assert image.size == (SIDE, SIDE)


def test_encode_reports_a_size_that_the_model_does_not_take(run: Run, photo: str) -> None:
    status, _, err = run("encode", photo, "-o", "latents", "--size", "64x64")
    assert status == 1
    assert "target_size is 64x64; this model takes 32x32 only" in err


@pytest.mark.parametrize("local", [False, True])
def test_roundtrip_compares_with_the_framed_original(
    run: Run, photo: str, client: Client, astronaut: Pixels, folder: Path, local: bool
) -> None:
    flags = ("--local", "--model", str(folder)) if local else ("--model", "faces")
    status, out, err = run("roundtrip", photo, "-o", "pictures", "--json", *flags)
    assert (status, err) == (0, "")
    (row,) = json.loads(out)["results"]
    framed = resize_to_cover(np.ascontiguousarray(astronaut[:200, :300]), SIDE, SIDE)
    decoded = np.asarray(client.decode(client.encode(framed)))
    assert (row["width"], row["height"], row["raw_bytes"]) == (SIDE, SIDE, framed.nbytes)
    assert (row["latent_shape"], row["latent_bytes"]) == ([DIM, 1, 1], 2 * DIM)
    assert row["psnr_db"] == pytest.approx(psnr(framed, decoded), abs=0.01)
    with Image.open("pictures/photo.roundtrip.png") as picture:
        assert picture.height > SIDE
