# SPDX-License-Identifier: Apache-2.0
"""The HTTP door: diffusers' own remote functions, unmodified, get the results of decoding in this process."""

import asyncio
import http.client
import io
import itertools
import json
import logging
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from diffusers import AutoencoderKL, FluxPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.remote_utils import remote_decode, remote_encode
from PIL import Image
from starlette.applications import Starlette
from torch import Tensor

from latentwire_cli.commands.serve import _say_ready
from latentwire_client import Client
from latentwire_codec.images.pixels import to_uint8
from latentwire_codec.images.writing import write_image
from latentwire_codec.load import load_autoencoder
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_core.formats import ImageFormat
from latentwire_server.app import Server, background
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_server.doors.http.hf_remote import RemoteVaeGateway
from latentwire_server.doors.http.server import HttpServer, Place
from latentwire_server.errors import ServerError
from tests.waiting import until_async

JSON = "application/json"
CLOSE = 2e-4  # float32 of the runtime's rewrites against the plain network


@pytest.fixture(scope="module")
def gateway(tiny_kl: Path) -> Iterator[Server]:
    """A server of one model under two names, with small limits."""
    models = (ModelSource("tiny", str(tiny_kl)), ModelSource("other", str(tiny_kl)))
    config = ServerConfig(models=models, port=0, http_port=0, metrics_port=0, max_message_mib=1, max_batch=4)
    with background(config) as running:
        yield running


@pytest.fixture(scope="module")
def url(gateway: Server) -> str:
    return f"http://127.0.0.1:{gateway.http_port}"


@pytest.fixture(scope="module")
def local(tiny_kl: Path) -> Autoencoder:
    """The same model in this process."""
    return load_autoencoder(str(tiny_kl), device="cpu")


@pytest.fixture(scope="module")
def vae(tiny_kl: Path) -> Any:
    """The same model as diffusers runs it."""
    return AutoencoderKL.from_pretrained(tiny_kl)


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*(shape or (1, 4, 6, 8)), generator=torch.Generator().manual_seed(13)).to(dtype)


def photo(image: np.ndarray, side: int = 32) -> Image.Image:
    return Image.fromarray(image).resize((side, side))


def levels(image: Image.Image | Tensor) -> np.ndarray:
    return np.asarray(image).astype(int)


# Keyword arguments of both functions -> a function from the latents that are sent to raw latents.
SCALINGS: dict[str, tuple[dict[str, Any], Any]] = {
    "the model's own, by default": ({}, lambda sent: sent / 0.5 + 0.25),
    "none": ({"do_scaling": False}, lambda sent: sent),
    "none, whatever the factors": ({"do_scaling": False, "scaling_factor": 2.0}, lambda sent: sent),
    "a factor": ({"scaling_factor": 0.8}, lambda sent: sent / 0.8),
    "a factor and a shift": ({"scaling_factor": 0.8, "shift_factor": -0.5}, lambda sent: sent / 0.8 - 0.5),
    "the model's factor and a shift": ({"shift_factor": -0.5}, lambda sent: sent / 0.5 - 0.5),
}
PROCESSOR = VaeImageProcessor()
# Output type, return type, whether there is a processor, partial postprocessing: all combinations for images that
# diffusers' own checks let through.
FORMS = [
    ("pil", "pil", False, False),
    ("pil", "pil", False, True),
    ("pil", "pil", True, False),
    ("pil", "pil", True, True),
    ("pil", "pt", True, False),
    ("pil", "pt", True, True),
    ("pt", "pil", True, False),
    ("pt", "pil", False, True),
    ("pt", "pil", True, True),
    ("pt", "pt", False, False),
    ("pt", "pt", True, False),
    ("pt", "pt", False, True),
    ("pt", "pt", True, True),
]


@pytest.mark.filterwarnings("ignore:.*do_scaling:FutureWarning")
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(("output_type", "return_type", "processed", "partial"), FORMS)
def test_remote_decode_gives_what_decoding_here_gives(
    url: str, local: Autoencoder, output_type: Any, return_type: Any, processed: bool, partial: bool, scaling: str
) -> None:
    arguments, to_raw = SCALINGS[scaling]
    latents = noise()
    floats = local.decode(to_raw(latents))
    expected = to_uint8(floats)[0].numpy()
    for image_format in ("jpg", "png"):
        answer: Any = remote_decode(
            url,
            latents,
            processor=PROCESSOR if processed else None,
            output_type=output_type,
            return_type=return_type,
            image_format=image_format,
            partial_postprocess=partial,
            **arguments,
        )
        if output_type == "pt" and return_type == "pt" and not partial:
            assert answer.dtype == torch.float32
            assert torch.equal(answer, floats)
        elif output_type == "pt" and return_type == "pt":
            assert answer.dtype == torch.uint8
            np.testing.assert_array_equal(answer[0], expected)
        elif output_type == "pil" and return_type == "pt":
            torch.testing.assert_close(answer, (floats / 2 + 0.5).clamp(0, 1))
        elif output_type == "pil" and not processed:
            assert answer.format == {"jpg": "jpeg", "png": "png"}[image_format]
            kind = ImageFormat.JPEG if image_format == "jpg" else ImageFormat.PNG
            file = Image.open(io.BytesIO(write_image(expected, kind)))
            np.testing.assert_array_equal(answer, file)
        else:  # the client makes the images, of all frames or of the first
            images = answer if isinstance(answer, list) else [answer]
            assert len(images) == 1
            assert np.abs(levels(images[0]) - expected).max() <= (0 if partial and output_type == "pt" else 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_floats_are_answered_in_the_dtype_of_the_latents(url: str, local: Autoencoder, dtype: torch.dtype) -> None:
    latents = noise(dtype=dtype)
    answer: Any = remote_decode(url, latents, do_scaling=False, output_type="pt", return_type="pt")
    assert torch.equal(answer, local.decode(latents.float()).to(dtype))


def test_decoding_is_that_of_diffusers(url: str, vae: Any) -> None:
    latents = noise()
    with torch.no_grad():
        expected = vae.decode(latents / 0.5 + 0.25).sample
    answer: Any = remote_decode(url, latents, scaling_factor=0.5, shift_factor=0.25, output_type="pt", return_type="pt")
    torch.testing.assert_close(answer, expected, atol=CLOSE, rtol=0)


def test_several_latents_are_several_images(url: str, local: Autoencoder) -> None:
    latents = noise(3, 4, 2, 4)
    images: Any = remote_decode(url, latents, do_scaling=False, output_type="pt", partial_postprocess=True)
    np.testing.assert_array_equal(np.stack(images), to_uint8(local.decode(latents)))
    with pytest.raises(RuntimeError, match="one by one"):
        remote_decode(url, latents, do_scaling=False)


def test_packed_latents_are_unpacked_as_the_flux_pipeline_does(url: str, local: Autoencoder) -> None:
    height, width = 32, 48  # f is 4: 8x12 latents, 4x6 tokens
    packed = noise(1, 24, 16)
    raw = FluxPipeline._unpack_latents(packed, height, width, 4) / 0.5 + 0.25
    answer: Any = remote_decode(
        url,
        packed,
        height=height,
        width=width,
        scaling_factor=0.5,
        shift_factor=0.25,
        output_type="pt",
        return_type="pt",
    )
    assert torch.equal(answer, local.decode(raw))


def test_a_video_is_an_error_that_remote_decode_can_read(url: str) -> None:
    with pytest.raises(RuntimeError, match="'code': 'INVALID_ARGUMENT'") as caught:
        remote_decode(url, noise(), output_type="mp4", return_type="mp4", do_scaling=False)
    assert "ask for pil or pt" in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"scaling_factor": 0.5}, {"shift_factor": 0.25}, {"scaling_factor": 0.5, "shift_factor": 0.25}],
    ids=str,
)
@pytest.mark.parametrize("kind", ["RGB", "RGBA", "L", "P", "float32", "float16", "bfloat16", "uint8"])
def test_remote_encode_gives_what_encoding_here_gives(
    url: str, local: Autoencoder, astronaut: np.ndarray, kind: str, arguments: dict[str, float]
) -> None:
    sent: Any = photo(astronaut)
    dtype = torch.float16
    if kind in ("RGB", "RGBA", "L", "P"):
        sent = sent.convert(kind)
    # remote_encode corrupts a tensor that is not contiguous.
    pixels = torch.from_numpy(np.array(sent.convert("RGB"))).permute(2, 0, 1)[None].contiguous()
    floats = pixels / 127.5 - 1
    if kind == "uint8":
        sent = pixels
    elif kind in ("float32", "float16", "bfloat16"):
        dtype = getattr(torch, kind)
        sent = floats.to(dtype)
        floats = sent.float()
    raw = local.encode(floats).mode()
    expected = (raw - arguments.get("shift_factor", 0.0)) * arguments.get("scaling_factor", 1.0)
    answer = remote_encode(url, sent, **arguments)
    assert answer.shape == (1, 4, 8, 8)
    assert answer.dtype == dtype
    assert torch.equal(answer, expected.to(dtype))


def test_encoding_is_that_of_diffusers(url: str, vae: Any, astronaut: np.ndarray) -> None:
    pixels = PROCESSOR.preprocess(photo(astronaut)).contiguous()  # remote_encode corrupts other tensors
    with torch.no_grad():
        expected = vae.encode(pixels).latent_dist.mode()
    torch.testing.assert_close(remote_encode(url, pixels), expected, atol=CLOSE, rtol=0)


def test_an_image_of_any_size_is_padded_to_whole_latents(url: str, astronaut: np.ndarray) -> None:
    image = Image.fromarray(astronaut).resize((30, 17))
    assert remote_encode(url, image).shape == (1, 4, 5, 8)


def test_a_sample_is_that_of_the_seed_as_over_grpc(
    gateway: Server, url: str, local: Autoencoder, astronaut: np.ndarray
) -> None:
    pixels = PROCESSOR.preprocess(photo(astronaut)).contiguous()  # remote_encode corrupts other tensors
    expected = local.encode(pixels).sample([7])
    assert torch.equal(remote_encode(f"{url}/?sample=true&seed=7", pixels), expected)
    with Client(f"127.0.0.1:{gateway.port}") as client:
        latents = client.encode(np.array(photo(astronaut)), kind="sample", seeds=[7], dtype="float32")
    np.testing.assert_array_equal(latents.values, expected)


@pytest.mark.parametrize(("image_format", "media_type"), [("png", "image/png"), ("jpg", "image/jpeg")])
def test_files_are_those_of_grpc_byte_for_byte(
    gateway: Server, url: str, astronaut: np.ndarray, image_format: str, media_type: str
) -> None:
    with Client(f"127.0.0.1:{gateway.port}") as client:
        latents = client.encode(np.array(photo(astronaut)), dtype="float32")
        files = client.decode_files(latents, image_format=image_format.replace("jpg", "jpeg"))
    values = latents.values
    query = {"shape": list(values.shape), "dtype": "float32", "image_format": image_format}
    answer = requests.post(f"{url}/decode", data=values.tobytes(), params=query)
    assert (answer.headers["content-type"], [answer.content]) == (media_type, files)


@pytest.mark.parametrize("path", ["", "/", "/predict", "/decode", "/tiny", "/other", "/other/decode", "/tiny/decode"])
def test_latents_are_decoded_at_every_path_for_them(url: str, path: str) -> None:
    image: Any = remote_decode(f"{url}{path}", noise(1, 4, 2, 2), do_scaling=False, image_format="png")
    assert image.size == (8, 8)


@pytest.mark.parametrize("path", ["", "/", "/predict", "/encode", "/tiny", "/other", "/other/encode", "/tiny/encode"])
def test_images_are_encoded_at_every_path_for_them(url: str, path: str) -> None:
    assert remote_encode(f"{url}{path}", torch.zeros(1, 3, 8, 8)).shape == (1, 4, 2, 2)


LATENTS: dict[str, Any] = {"shape": [1, 4, 2, 2], "dtype": "float32", "output_type": "pt"}
BODY = noise(1, 4, 2, 2).numpy().tobytes()
NAN = np.full((1, 4, 2, 2), np.nan, np.float32).tobytes()
HUGE = np.full((1, 4, 2, 2), 1e30, np.float32).tobytes()
BINARY = {"Content-Type": "tensor/binary"}

# A fault -> method, path, query, headers, body; its status, and the words that the message must have.
BAD: dict[str, tuple[str, str, dict[str, Any], dict[str, str], bytes, int, list[str]]] = {
    "path": ("POST", "/nowhere", LATENTS, BINARY, BODY, 404, ["POST /nowhere", "/MODEL/decode", "GET /"]),
    "path of a file": ("POST", "/etc/passwd/decode", LATENTS, BINARY, BODY, 404, ["/etc/passwd"]),
    "model that is not served": ("POST", "/sdxl/decode", LATENTS, BINARY, BODY, 404, ["/sdxl/decode"]),
    "slash at the end": ("POST", "/decode/", LATENTS, BINARY, BODY, 404, ["/decode/"]),
    "method": ("GET", "/decode", LATENTS, {}, b"", 405, ["GET /decode"]),
    "method of the root": ("DELETE", "/", {}, {}, b"", 405, ["DELETE /"]),
    "no shape": ("POST", "/decode", {**LATENTS, "shape": []}, BINARY, BODY, 400, ["shape is []"]),
    "float64": ("POST", "/", {**LATENTS, "dtype": "float64"}, BINARY, BODY, 400, ["float64", "bfloat16"]),
    "unknown dtype": ("POST", "/encode", {**LATENTS, "dtype": "int4"}, {}, BODY, 400, ["int4", "uint8"]),
    "length": ("POST", "/decode", LATENTS, BINARY, BODY[1:], 400, ["63 bytes", "64"]),
    "channels": ("POST", "/decode", {**LATENTS, "shape": [1, 2, 2, 4]}, BINARY, BODY, 400, ["(1, 2, 2, 4)", "4, h, w"]),
    "axes": ("POST", "/decode", {**LATENTS, "shape": [4, 4]}, BINARY, BODY, 400, ["(4, 4)"]),
    "many rows": ("POST", "/decode", {**LATENTS, "shape": [512, 1]}, BINARY, BODY * 32, 400, ["(512, 1)", "4, h, w"]),
    "many axes": (
        "POST", "/decode", {**LATENTS, "shape": [1] * 65, "dtype": "float16"}, BINARY, BODY[:2], 400, ["65 sides"],
    ),
    "NaN": ("POST", "/decode", LATENTS, BINARY, NAN, 400, ["nan", "scaling_factor", ".cpu().contiguous()"]),
    "absurd": ("POST", "/decode", LATENTS, BINARY, HUGE, 400, ["1e+30", "scaling_factor", ".cpu().contiguous()"]),
    "scaling": ("POST", "/decode", {**LATENTS, "scaling_factor": "x"}, BINARY, BODY, 400, ["scaling_factor is x"]),
    "base64": ("POST", "/", LATENTS, {"Content-Type": "tensor/base64"}, b"{}", 400, ["tensor/binary"]),
    "empty": ("POST", "/encode", {}, {}, b"", 400, ["0 bytes"]),
    "not an image": ("POST", "/encode", {}, {}, b"hello", 400, ["5 bytes", "PNG"]),
    "latents to encode": ("POST", "/encode", LATENTS, {}, BODY, 400, ["(1, 4, 2, 2)", "/decode"]),
    "odd side": ("POST", "/encode", {"shape": [1, 3, 2, 2], "dtype": "uint8"}, {}, b"x" * 12, 400, ["multiple of 4"]),
    "image with NaN": ("POST", "/encode", {**LATENTS, "shape": [1, 3, 4, 4]}, {}, NAN * 3, 400, ["nan", "contiguous"]),
    "no seed": ("POST", "/encode?sample=true", {**LATENTS, "shape": [1, 3, 4, 4]}, {}, BODY * 3, 400, ["no seed"]),
    "batch": ("POST", "/decode", {**LATENTS, "shape": [8, 4, 1, 1]}, BINARY, BODY * 2, 413, ["8 images", "max-batch"]),
    "body": ("POST", "/decode", LATENTS, BINARY, bytes(2**20 + 1), 413, ["1048577 bytes", "1048576", "--max-message"]),
    "answer": (
        "POST", "/decode", {**LATENTS, "shape": [1, 4, 128, 128]}, BINARY, bytes(4 * 4 * 128**2), 413,
        ["3145728 bytes", "--max-message-mib"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_told_as_json_and_the_server_goes_on(gateway: Server, url: str, what: str) -> None:
    method, path, query, headers, body, status, words = BAD[what]
    answer = requests.request(method, url + path, params=query, headers=headers, data=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, JSON)
    told = answer.json()
    assert [word for word in words if word not in told["error"]] == []
    assert told["code"]
    assert requests.get(f"{url}/health").ok


def test_a_body_without_a_length_is_read_no_further_than_the_limit(url: str) -> None:
    chunks = itertools.repeat(bytes(2**16), 32)
    answer = requests.post(f"{url}/decode", params=LATENTS, headers=BINARY, data=chunks)
    assert (answer.status_code, answer.headers["content-type"]) == (413, JSON)
    assert "1048576 are accepted (serve --max-message-mib)" in answer.json()["error"]


def test_a_body_in_chunks_is_read_whole(url: str) -> None:
    answer = requests.post(f"{url}/decode", params=LATENTS, headers=BINARY, data=iter([BODY[:5], BODY[5:]]))
    assert json.loads(answer.headers["shape"]) == [1, 3, 8, 8]


def test_a_request_says_its_id_and_its_answer_too(url: str) -> None:
    sent = requests.post(f"{url}/encode", data=b"", headers={"x-request-id": "my-id/1"})
    assert sent.headers["x-request-id"] == sent.json()["request_id"] == "my-id/1"
    forged = requests.post(f"{url}/encode", data=b"", headers={"x-request-id": 'forged" line'})
    assert len(forged.headers["x-request-id"]) == 32
    foreign = requests.post(f"{url}/encode", data=b"", headers={"x-request-id": "caf\xe9"})
    assert len(foreign.headers["x-request-id"]) == 32


def test_what_leads_nowhere_and_health_have_an_id_too_and_the_first_a_line_in_the_log(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("latentwire")
    log.setLevel(logging.INFO)
    log.addHandler(caplog.handler)
    try:
        lost = requests.get(f"{url}/nowhere", headers={"x-request-id": "my-id/2"})
        health = requests.get(f"{url}/health", headers={"x-request-id": "my-id/3"})
    finally:
        log.removeHandler(caplog.handler)
    assert lost.headers["x-request-id"] == lost.json()["request_id"] == "my-id/2"
    assert health.headers["x-request-id"] == "my-id/3"
    assert [line for line in caplog.messages if line.startswith("http/unknown NOT_FOUND in ")]
    assert not [line for line in caplog.messages if "health" in line]


def test_a_fault_of_the_server_is_told_by_its_request_id_alone(
    gateway: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentwire_server.engine.engine.compute", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match=r"internal error.*'code': 'INTERNAL'") as caught:
        remote_decode(url, noise(1, 4, 2, 2), do_scaling=False)
    assert "division" not in str(caught.value)


def test_the_root_says_what_is_served(url: str) -> None:
    served = requests.get(url).json()
    assert [model["name"] for model in served["models"]] == ["tiny", "other"]
    tiny = served["models"][0]
    assert (tiny["latent_channels"], tiny["downsample_factor"]) == (4, 4)
    assert (tiny["scale"], tiny["shift"]) == ([0.5], [0.25])
    assert served["max_body_bytes"] == 2**20
    assert requests.head(url).status_code == 200


def test_metrics_tell_the_protocol_and_share_the_rest(gateway: Server, url: str) -> None:
    def metrics() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.metrics_port}/metrics") as page:
            lines = page.read().decode().splitlines()
        return {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines if not x.startswith("#"))}

    before = metrics()
    remote_decode(url, noise(1, 4, 2, 2), do_scaling=False)
    remote_encode(url, torch.zeros(1, 3, 8, 8))
    requests.post(f"{url}/decode")
    requests.get(f"{url}/")
    requests.get(f"{url}/nowhere")
    requests.get(f"{url}/health")
    after = metrics()
    grown = {
        name for name in after if name.startswith("latentwire_requests_total") and after[name] > before.get(name, 0)
    }
    assert grown == {
        'latentwire_requests_total{code="OK",method="http/decode"}',
        'latentwire_requests_total{code="OK",method="http/encode"}',
        'latentwire_requests_total{code="INVALID_ARGUMENT",method="http/decode"}',
        'latentwire_requests_total{code="OK",method="http/info"}',
        'latentwire_requests_total{code="NOT_FOUND",method="http/unknown"}',
    }
    for operation in ("decode", "encode"):
        name = f'latentwire_queue_seconds_count{{operation="{operation}"}}'
        assert after[name] == before.get(name, 0) + 1


def test_a_token_is_asked_for_and_may_stand_in_the_url_as_a_password(tiny_kl: Path) -> None:
    models = (ModelSource("tiny", str(tiny_kl)),)
    with background(ServerConfig(models=models, port=0, http_port=0, token="s3cret")) as server:
        address = f"127.0.0.1:{server.http_port}"
        assert requests.get(f"http://{address}/health").ok
        for wrong in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic ???"},
            {"Authorization": "Basic \xe9"},
        ):
            for method, path in (("GET", "/"), ("POST", "/decode"), ("POST", "/tiny/encode")):
                answer = requests.request(method, f"http://{address}{path}", headers=wrong)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
                assert answer.json()["code"] == "UNAUTHENTICATED"
        right = {"Authorization": "Bearer s3cret"}
        assert requests.get(f"http://{address}/", headers=right).json()["models"][0]["name"] == "tiny"
        image = torch.zeros(1, 3, 8, 8)
        assert remote_encode(f"http://any:s3cret@{address}/", image).shape == (1, 4, 2, 2)
        with pytest.raises(RuntimeError, match="UNAUTHENTICATED"):
            remote_encode(f"http://any:wrong@{address}/", image)


async def test_a_full_queue_says_when_to_try_again_and_who_goes_leaves_the_queue(tiny_kl: Path) -> None:
    config = ServerConfig(models=(ModelSource("tiny", str(tiny_kl)),), port=0, http_port=0, max_queue=1)
    server = Server(config)
    await server.start()
    url = f"http://127.0.0.1:{server.http_port}"
    run, hold = server._engine._run_batch, asyncio.Event()

    async def run_later(*arguments: Any) -> Any:
        await hold.wait()
        return await run(*arguments)

    server._engine._batcher._run = run_later
    first = http.client.HTTPConnection("127.0.0.1", server.http_port)
    with closing(first):
        await asyncio.to_thread(
            first.request, "POST", "/encode?shape=1&shape=3&shape=8&shape=8&dtype=uint8", bytes(192)
        )
        await until_async(lambda: server._engine.places.held)
        answer = await asyncio.to_thread(requests.post, f"{url}/decode", BODY, params=LATENTS, headers=BINARY)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["code"] == "RESOURCE_EXHAUSTED"
    await until_async(lambda: not server._engine.places.held)
    hold.set()
    assert (await asyncio.to_thread(remote_encode, url, torch.zeros(1, 3, 8, 8))).shape == (1, 4, 2, 2)
    await server.stop()
    ended = server.metrics.registry.get_sample_value
    assert ended("latentwire_requests_total", {"method": "http/encode", "code": "CANCELLED"}) == 1


async def test_it_is_unavailable_until_the_models_are_warm_and_when_it_stops_finishes_what_is_in(
    tiny_kl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(ServerConfig(models=(ModelSource("tiny", str(tiny_kl)),), port=0, http_port=0))
    load, loading, go_on, hold = server._engine.start, asyncio.Event(), asyncio.Event(), asyncio.Event()
    run = server._engine._run_batch

    async def load_slowly() -> None:
        loading.set()
        await go_on.wait()
        await load()

    async def run_later(*arguments: Any) -> Any:
        await hold.wait()
        return await run(*arguments)

    monkeypatch.setattr(server._engine, "start", load_slowly)
    starting = asyncio.create_task(server.start())
    await loading.wait()
    url = f"http://127.0.0.1:{server.http_port}"

    def refused(path: str, method: str = "GET") -> str:
        answer = requests.request(method, url + path)
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
        return str(answer.json()["error"])

    for path, method in (("/health", "GET"), ("/", "GET"), ("/encode", "POST")):
        assert "loading" in await asyncio.to_thread(refused, path, method)
    go_on.set()
    await starting
    assert (await asyncio.to_thread(requests.get, f"{url}/health")).json() == {"status": "ok"}
    server._engine._batcher._run = run_later
    accepted = asyncio.create_task(asyncio.to_thread(remote_encode, url, torch.zeros(1, 3, 8, 8)))
    await until_async(lambda: server._engine.places.held)
    stopping = asyncio.create_task(server.stop())
    await until_async(server._lifecycle.draining.is_set)
    for path, method in (("/health", "GET"), ("/encode", "POST")):
        assert "shutting down" in await asyncio.to_thread(refused, path, method)
    hold.set()
    assert (await accepted).shape == (1, 4, 2, 2)
    assert await stopping
    with pytest.raises(requests.ConnectionError):
        await asyncio.to_thread(requests.get, f"{url}/health")


async def test_a_body_that_does_not_end_is_refused_when_the_server_stops(tiny_kl: Path) -> None:
    server = Server(ServerConfig(models=(ModelSource("tiny", str(tiny_kl)),), port=0, http_port=0))
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    with closing(writer):
        writer.write(b"POST /encode HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")  # the body is being read
        writer.write(b"half")
        assert await server.stop()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert "shutting down" in json.loads(body)["error"]


def test_a_port_that_is_taken_is_a_clear_error_and_the_first_server_goes_on(gateway: Server, url: str) -> None:
    second = ServerConfig(models=gateway.config.models, port=0, http_port=gateway.http_port)
    with pytest.raises(ServerError, match=f"HTTP on port {gateway.http_port}.*--http-port"), background(second):
        pass
    assert requests.get(f"{url}/health").ok


@pytest.mark.parametrize("names", [("tiny", "decode"), ("health",), ("tiny", "tiny/encode")])
def test_a_model_whose_path_means_something_else_is_refused(names: tuple[str, ...]) -> None:
    models = tuple(ModelSource(name, "f8c4") for name in names)
    nothing: Any = None
    gateway = RemoteVaeGateway(nothing, ServerConfig(models=models, http_port=0), nothing, nothing)
    with pytest.raises(ServerError, match=f"/{names[-1]} would stand for two.*--model NAME=SOURCE"):
        gateway.application()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
async def test_every_address_of_ipv6_is_every_address_of_ipv4_too() -> None:
    server = HttpServer(Starlette(), ServerConfig(), Place("::", 0, "--http-port", "HTTP"))
    port = await server.start()
    try:
        answer = await asyncio.to_thread(requests.get, f"http://127.0.0.1:{port}/")
        assert answer.status_code == 404
    finally:
        await server.stop(0)


def test_without_the_flag_nothing_speaks_http(server: Server) -> None:
    assert server.http_port == 0


def test_the_command_takes_the_port_from_its_variable_and_stops_at_sigterm(
    tiny_kl: Path, start_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("LATENTWIRE_HTTP_PORT", str(port))
    with start_server("--model", f"tiny={tiny_kl}") as (process, _):
        assert remote_encode(f"http://127.0.0.1:{port}", torch.zeros(1, 3, 8, 8)).shape == (1, 4, 2, 2)
        process.terminate()
        assert process.wait() == 0


def test_the_command_says_where_it_speaks_http(gateway: Server, capsys: pytest.CaptureFixture[str]) -> None:
    _say_ready(gateway.config, gateway.ports)
    assert f"tiny,other on 127.0.0.1:{gateway.port}, HTTP on 127.0.0.1:{gateway.http_port}," in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_with_a_certificate_it_speaks_tls_as_grpc_does(
    tiny_kl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    models = (ModelSource("tiny", str(tiny_kl)),)
    with background(ServerConfig(models=models, port=0, http_port=0, tls_cert=cert, tls_key=key)) as server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cert))
        address = f"127.0.0.1:{server.http_port}"
        assert remote_encode(f"https://{address}", torch.zeros(1, 3, 8, 8)).shape == (1, 4, 2, 2)
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://{address}/health")
