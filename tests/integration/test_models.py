# SPDX-License-Identifier: Apache-2.0
"""Several models in one server: chosen by name, loaded when they are asked for, kept within a memory."""

import asyncio
import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from latentwire_cli import main
from latentwire_client import Client, DeadlineExceeded, Latents, Retry, Timeout, Unavailable, UnknownModel
from latentwire_codec.load import load_autoencoder
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_proto.v1.latent_codec_pb2_grpc import LatentCodecServiceStub
from latentwire_server import app
from latentwire_server.app import Server, background
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_server.engine import engine, models
from latentwire_server.process.ports import Ports
from tests.waiting import until

IMAGE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
NAMES = ("red", "green", "blue")
ONCE = Retry(attempts=1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of different small AutoencoderKLs of 0.5 to 1 MiB each: one at a time fits into 1 MiB."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        vae: Any = AutoencoderKL(
            block_out_channels=(20, 28),  # too few for Winograd's larger weights
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            scaling_factor=0.5 + seed,
        )
        assert 2**19 < sum(parameter.numel() for parameter in vae.parameters()) * 4 < 2**20
        vae.save_pretrained(folder / name)
    return folder


@pytest.fixture
def folders(saved: Path, tmp_path: Path) -> dict[str, Path]:
    """A copy of the folders that a test may change."""
    shutil.copytree(saved, tmp_path / "models")
    return {name: tmp_path / "models" / name for name in NAMES}


def configured(folders: dict[str, Path], **settings: Any) -> ServerConfig:
    sources = tuple(ModelSource(name, str(folder)) for name, folder in folders.items())
    return ServerConfig(models=sources, model_memory_mib=1, port=0, device="cpu", **settings)


@contextmanager
def serving(folders: dict[str, Path], **settings: Any) -> Iterator[tuple[Server, Client]]:
    with background(configured(folders)) as server, Client(f"127.0.0.1:{server.port}", **settings) as client:
        yield server, client


def loads(server: Server, name: str) -> int:
    """Return how often a model was loaded."""
    value = server.metrics.registry.get_sample_value("latentwire_model_load_seconds_count", {"model": name})
    assert value is not None
    return int(value)


def loaded(client: Client) -> list[str]:
    return [model.name for model in client.info().models if model.loaded]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator["Slow"]:
    slow = Slow()
    monkeypatch.setattr(engine, "load_autoencoder", slow.load)
    yield slow
    slow.go_on.set()


class Slow:
    """Loads that the test can hold up."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.held_up = ""
        self.began = threading.Event()
        self.go_on = threading.Event()

    def load(self, source: str, **settings: Any) -> Autoencoder:
        self.loaded.append(Path(source).name)
        if self.loaded[-1] == self.held_up:
            self.began.set()
            assert self.go_on.wait()
        return load_autoencoder(source, **settings)


def test_models_are_chosen_by_name_and_come_back_with_the_same_bits(folders: dict[str, Path]) -> None:
    with serving(folders) as (server, client):
        first = {name: client.encode(IMAGE, model=name) for name in NAMES}
        again = {name: client.encode(IMAGE, model=name) for name in reversed(NAMES)}
        images = {name: client.decode_array(first[name], model=name) for name in NAMES}
        assert [loads(server, name) for name in NAMES] == [2, 3, 2]
    for name in NAMES:
        assert first[name].model == again[name].model == name
        np.testing.assert_array_equal(first[name].values, again[name].values)
        vae: Any = AutoencoderKL.from_pretrained(folders[name])
        pixels = torch.from_numpy(IMAGE).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            expected = vae.encode(pixels).latent_dist.mode().numpy()
        np.testing.assert_allclose(first[name].values, expected, atol=2e-3)
    assert not np.array_equal(first["red"].values, first["blue"].values)
    assert not np.array_equal(images["red"], images["blue"])


def test_the_server_tells_what_every_model_is_whether_it_is_loaded_or_not(folders: dict[str, Path]) -> None:
    with serving(folders) as (_, client):
        assert loaded(client) == ["red"]
        before = client.info().models
        client.encode(IMAGE, model="blue")
        assert loaded(client) == ["blue"]
        after = client.info().models
        client.encode(IMAGE)
        assert loaded(client) == ["red"]
    assert [model.name for model in before] == list(NAMES)
    for one, other in zip(before, after, strict=True):
        known = {key: value for key, value in vars(one).items() if key != "loaded"}
        assert known == {key: value for key, value in vars(other).items() if key != "loaded"}
    for number, model in enumerate(before):
        file = folders[model.name] / "diffusion_pytorch_model.safetensors"
        assert model.file_hash == sha256(file.read_bytes()).hexdigest()[:10]
        assert (model.class_name, model.latent_channels, model.downsample_factor) == ("AutoencoderKL", 4, 2)
        assert (model.scale, model.shift) == ((0.5 + number,), (0.0,))
        assert len(model.weights_digest) == 64


def test_only_the_names_of_the_configuration_load_anything(folders: dict[str, Path], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folders["red"], elsewhere)
    served = {name: folders[name] for name in ("red", "green")}
    unknown = [
        "blue", str(elsewhere), str(folders["green"]), f"green={folders['green']}", "../elsewhere", "./green",
        "green/", "green/config.json", "f8c4", "stabilityai/sd-vae-ft-mse", "https://example.org/vae.safetensors",
        "green\0", "GREEN", "*", "~", "x" * 10_000,
    ]  # fmt: skip
    with serving(served) as (server, client), grpc.insecure_channel(client.target) as channel:
        stub = LatentCodecServiceStub(channel)
        for name in unknown:
            with pytest.raises(UnknownModel):
                client.encode(IMAGE, model=name)
            with pytest.raises(UnknownModel):
                client.decode(Latents(np.zeros((1, 4, 2, 2), np.float32)), model=name)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Encode(pb.EncodeRequest(model=name, image_file=b"x"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert [loads(server, name) for name in served] == [1, 0]
        assert loaded(client) == ["red"]
        samples = [sample for metric in server.metrics.registry.collect() for sample in metric.samples]
    assert {sample.labels["model"] for sample in samples if "model" in sample.labels} <= set(served)


def test_first_requests_at_once_share_one_load(folders: dict[str, Path], slow: Slow) -> None:
    with serving(folders) as (server, client), ThreadPoolExecutor(6) as threads:
        slow.held_up = "green"
        answers = [threads.submit(client.encode, IMAGE, model="green") for _ in range(6)]
        assert slow.began.wait()
        until(lambda: server.metrics.registry.get_sample_value("latentwire_queue_images") == 6)
        slow.go_on.set()
        values = [answer.result().values for answer in answers]
        assert loads(server, "green") == 1
        queued_s = server.metrics.registry.get_sample_value("latentwire_queue_seconds_sum", {"operation": "encode"})
        assert queued_s is not None
        assert queued_s > 0
    assert all(np.array_equal(one, values[0]) for one in values)


def test_a_deadline_that_passes_during_a_load_is_told_and_the_load_goes_on(
    folders: dict[str, Path], slow: Slow
) -> None:
    with serving(folders, timeout=Timeout(stream_item_s=2.0)) as (_, client):
        slow.held_up = "green"
        (item,) = client.encode_stream([IMAGE], model="green")
        assert isinstance(item.error, DeadlineExceeded)
        assert "while model 'green' was being loaded" in str(item.error)
        slow.go_on.set()
        until(lambda: loaded(client) == ["green"])


def test_a_model_whose_file_is_gone_is_unavailable_until_it_is_back_and_the_others_go_on(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "REST_S", 0.01)
    with serving(folders, retry=ONCE) as (server, client):
        config = folders["green"] / "config.json"
        text = config.read_text()
        config.unlink()
        with pytest.raises(Unavailable, match="model 'green' cannot be loaded now") as caught:
            client.encode(IMAGE, model="green")
        assert str(folders["green"]) not in str(caught.value)
        client.encode(IMAGE, model="blue")
        config.write_text(text)
        until(lambda: server._engine.models["green"].residency is None)
        client.encode(IMAGE, model="green")
        assert loaded(client) == ["green"]


@pytest.mark.parametrize("change", ["weights", "scale"])
def test_a_model_that_changed_since_the_start_is_refused(
    folders: dict[str, Path], change: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("latentwire"), "propagate", True)
    with serving(folders, retry=ONCE) as (_, client):
        if change == "weights":
            name = "diffusion_pytorch_model.safetensors"
            shutil.copyfile(folders["blue"] / name, folders["green"] / name)
        else:
            config = folders["green"] / "config.json"
            config.write_text(json.dumps({**json.loads(config.read_text()), "scaling_factor": 7.0}))
        with pytest.raises(Unavailable):
            client.encode(IMAGE, model="green")
        client.encode(IMAGE, model="red")
        assert loaded(client) == ["red"]
    changed = "weights_digest, file_sha256" if change == "weights" else "config, scale"
    assert f"{folders['green']} changed since the server started (its {changed};" in caplog.text


async def test_a_request_that_waits_for_a_load_is_finished_when_the_server_drains(
    folders: dict[str, Path], slow: Slow
) -> None:
    server = Server(configured(folders))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = LatentCodecServiceStub(channel)
        tensor = pb.Tensor(dtype=pb.DTYPE_UINT8, shape=(1, *IMAGE.shape), data=IMAGE.tobytes())
        image = pb.ImageTensor(tensor=tensor, layout=pb.IMAGE_LAYOUT_UINT8_NHWC)
        slow.held_up = "green"
        accepted = stub.Encode(pb.EncodeRequest(model="green", image_tensor=image))
        await asyncio.to_thread(slow.began.wait, 60)
        stopping = asyncio.create_task(server.stop())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Encode(pb.EncodeRequest(model="blue", image_tensor=image))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        slow.go_on.set()
        assert (await accepted).execution.model == "green"
        assert await stopping


async def test_sigterm_while_models_are_loaded_at_the_start_ends_with_the_one_that_is_being_loaded(
    folders: dict[str, Path], slow: Slow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("latentwire"), "propagate", True)
    caplog.set_level(logging.INFO, "latentwire")
    servers: list[Server] = []

    class Known(Server):
        def __init__(self, config: ServerConfig, **options: bool) -> None:
            super().__init__(config, **options)
            servers.append(self)

    monkeypatch.setattr(app, "Server", Known)
    slow.held_up = "green"
    ready: list[Ports] = []
    running = asyncio.create_task(app._run(configured(folders), ready.append))
    try:
        await asyncio.to_thread(slow.began.wait, 60)
        os.kill(os.getpid(), signal.SIGTERM)
        await servers[0]._lifecycle.draining.wait()
        slow.go_on.set()
        await running
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
    assert (ready, slow.loaded) == ([], ["red", "green"])
    assert "stopped before every model was loaded" in caplog.text


def test_the_command_serves_models_within_a_memory_and_shows_them(
    start_server: Callable[..., AbstractContextManager[tuple[Any, str]]],
    folders: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = [flag for name, folder in folders.items() for flag in ("--model", f"{name}={folder}")]
    of_models = ["--scale", "green=2", "--shift", "green=0.25", "--latent-space", "green=meadow"]
    with start_server(*flags, "--model-memory", "1", *of_models) as (process, address):
        assert main(["info", "--server", address, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        red, green, _ = document["models"]
        assert [model["loaded"] for model in document["models"]] == [True, False, False]
        assert (red["scale"], red["shift"]) == ([0.5], [0.0])
        assert (green["scale"], green["shift"], green["latent_space"]) == ([2.0], [0.25], "meadow")
        assert main(["info", "--server", address]) == 0
        shown = capsys.readouterr().out
        assert green["file_sha256"][:10] in shown
        assert shown.count("no, loaded when asked for") == 2
        with Client(address) as client:
            raw, scaled = (client.encode(IMAGE, model="green", scaled=scaled).values for scaled in (False, True))
            np.testing.assert_allclose(scaled, (raw - 0.25) * 2, atol=2e-3)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
