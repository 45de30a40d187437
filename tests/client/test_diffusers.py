# SPDX-License-Identifier: Apache-2.0
"""`RemoteAutoencoderKL` by itself: what it shows, takes and refuses, against a server that is easily checked."""

import copy
import json
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from accelerate import cpu_offload
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from latentwire_client import (
    Execution,
    LatentSpaceMismatch,
    Limits,
    Overloaded,
    Retry,
    Unavailable,
    UnknownModel,
    WeightsChanged,
    testing,
)
from latentwire_client._channels import Connection, Connections
from latentwire_client.diffusers import RemoteAutoencoderKL
from latentwire_client.diffusers.expected_space import weights_digest
from latentwire_client.diffusers.pipeline_config import to_pipeline_config
from latentwire_client.info import ModelInfo
from latentwire_client.testing import FakeServer
from latentwire_codec.checkpoints.checkpoint import load_checkpoint
from latentwire_proto.v1 import latent_codec_pb2 as pb

SPACE = testing.MODEL.latent_space
SAVED_TARGET = "LATENTWIRE_SERVER"
TOKEN = "LATENTWIRE_TOKEN"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    for variable in (SAVED_TARGET, TOKEN):
        monkeypatch.delenv(variable, raising=False)
    with FakeServer() as server:
        yield server


@pytest.fixture
def calls() -> list[Execution]:
    return []


@pytest.fixture
def vae(server: FakeServer, calls: list[Execution]) -> Iterator[RemoteAutoencoderKL]:
    vae = RemoteAutoencoderKL.connect(server.target, latent_space=SPACE, on_execution=calls.append)
    yield vae
    vae.close()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


def served_as(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let the fake server say something else of its model."""
    model = pb.ModelInfo()
    model.CopyFrom(testing.MODEL)
    for name, value in changes.items():
        if isinstance(value, list):
            del getattr(model, name)[:]
            getattr(model, name).extend(value)
        elif isinstance(value, pb.ImageSize):
            getattr(model, name).CopyFrom(value)
        else:
            setattr(model, name, value)
    monkeypatch.setattr(testing, "MODEL", model)


def limited_to(monkeypatch: pytest.MonkeyPatch, **limits: int) -> None:
    changed = pb.Limits()
    changed.CopyFrom(testing.LIMITS)
    changed.MergeFrom(pb.Limits(**limits))
    monkeypatch.setattr(testing, "LIMITS", changed)


def small_kl(levels: int = 4, channels: int = 3, **config: Any) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=[4] * levels,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        latent_channels=channels,
        norm_num_groups=2,
        **{"scaling_factor": 1.0, **config},
    )


def means(images: torch.Tensor) -> torch.Tensor:
    """The fake's encoding: the mean of each 8x8 block of the 8-bit image."""
    levels = ((images + 1) * 127.5).round().clamp(0, 255)
    return torch.nn.functional.avg_pool2d(levels, 8) / 127.5 - 1


def test_images_become_a_real_posterior_and_come_back(vae: RemoteAutoencoderKL, images: torch.Tensor) -> None:
    posterior = vae.encode(images).latent_dist
    assert isinstance(posterior, DiagonalGaussianDistribution)
    torch.testing.assert_close(posterior.mode(), means(images), atol=1e-5, rtol=0)
    drawn = posterior.sample(torch.Generator().manual_seed(1))
    assert torch.equal(drawn, posterior.sample(torch.Generator().manual_seed(1)))
    decoded = vae.decode(drawn).sample
    assert decoded.shape == images.shape
    torch.testing.assert_close(decoded[:, :, ::8, ::8], drawn)
    torch.testing.assert_close(vae(images).sample[:, :, ::8, ::8], posterior.mode())


def test_every_form_of_the_calls_is_taken(server: FakeServer, images: torch.Tensor) -> None:
    vae: Any = RemoteAutoencoderKL.connect(server.target, latent_space=SPACE)
    (posterior,) = vae.encode(images, return_dict=False)
    z = posterior.mode()
    wanted = vae.decode(z).sample
    generator = torch.Generator()
    for found in (
        vae.decode(z, return_dict=False)[0],
        vae.decode(z, False, generator)[0],
        vae.decode(z, return_dict=False, generator=generator)[0],
        vae.decode(z=z, temb=None).sample,
        vae.decode(z, image=images, mask=images).sample,
        vae.tiled_decode(z).sample,
        vae.tiled_decode(z, return_dict=False)[0],
    ):
        assert torch.equal(found, wanted)
    assert torch.equal(vae.tiled_encode(images).latent_dist.mode(), z)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_answers_have_the_dtype_of_the_vae(vae: RemoteAutoencoderKL, images: torch.Tensor, dtype: torch.dtype) -> None:
    assert vae.to(dtype) is vae
    assert vae.dtype == dtype
    assert next(iter(vae.post_quant_conv.parameters())).dtype == dtype
    moments = vae.encode(images.to(dtype)).latent_dist.parameters
    assert moments.dtype == dtype
    decoded = vae.decode(moments[:, :3]).sample
    assert decoded.dtype == dtype
    tolerance = {torch.bfloat16: 2e-2, torch.float16: 6e-3}.get(dtype, 1e-5)
    torch.testing.assert_close(decoded[:, :, ::8, ::8].float(), means(images), atol=tolerance, rtol=0)


def test_answers_are_on_the_device_of_the_input_wherever_the_parameter_is(
    vae: RemoteAutoencoderKL, images: torch.Tensor
) -> None:
    vae.to("meta")
    assert vae.device.type == "meta"
    assert vae.encode(images).latent_dist.mean.device.type == "cpu"
    assert vae.decode(torch.zeros(1, 3, 2, 2)).sample.device.type == "cpu"


def test_weights_that_accelerate_takes_away_one_by_one_are_not_missed(
    vae: RemoteAutoencoderKL, images: torch.Tensor
) -> None:
    wanted = vae.encode(images).latent_dist.mode()
    cpu_offload(vae, torch.device("cpu"))  # what enable_sequential_cpu_offload does to each model
    assert vae.device.type == "meta"
    for _ in range(2):
        latents = vae.encode(images).latent_dist.mode()
        assert torch.equal(latents, wanted)
        assert vae.decode(latents).sample.device.type == "cpu"


def test_a_model_without_a_log_variance_gives_its_mode_and_draws_nothing(
    monkeypatch: pytest.MonkeyPatch, server: FakeServer, images: torch.Tensor
) -> None:
    served_as(monkeypatch, has_logvar=False)
    posterior = RemoteAutoencoderKL.connect(server.target, latent_space=SPACE).encode(images).latent_dist
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(posterior.sample(generator), posterior.mode())
    assert generator.initial_seed() == 3
    assert torch.equal(torch.rand(2, generator=generator), torch.rand(2, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize(
    ("limits", "requests"), [({"max_batch_images": 2}, 3), ({"max_message_bytes": 4096 + 9300}, 3)]
)
def test_a_batch_over_the_limits_of_the_server_is_split(
    monkeypatch: pytest.MonkeyPatch,
    server: FakeServer,
    images: torch.Tensor,
    calls: list[Execution],
    limits: dict[str, int],
    requests: int,
) -> None:
    limited_to(monkeypatch, **limits)
    vae = RemoteAutoencoderKL.connect(server.target, latent_space=SPACE, on_execution=calls.append)
    latents = vae.encode(images).latent_dist.mode()
    assert len(calls) == requests
    torch.testing.assert_close(latents, means(images), atol=1e-5, rtol=0)
    assert vae.decode(latents).sample.shape == images.shape
    assert len(calls) == 2 * requests


def test_a_batch_over_the_client_s_own_limit_is_split(server: FakeServer, images: torch.Tensor) -> None:
    limits = Limits(max_message_bytes=4096 + 4700)
    vae = RemoteAutoencoderKL.connect(server.target, latent_space=SPACE, limits=limits)
    vae.encode(images)
    assert server.calls["Encode"] == 5


def test_slicing_sends_each_image_by_itself_and_tiling_changes_nothing(
    vae: RemoteAutoencoderKL, images: torch.Tensor, calls: list[Execution]
) -> None:
    vae.enable_tiling()
    assert vae.use_tiling
    whole = vae.encode(images).latent_dist.mode()
    vae.enable_slicing()
    assert torch.equal(vae.encode(images).latent_dist.mode(), whole)
    assert len(calls) == 6
    vae.decode(whole)
    assert len(calls) == 11
    vae.disable_slicing()
    vae.disable_tiling()
    vae.fuse_qkv_projections()  # there is nothing to fuse
    vae.unfuse_qkv_projections()
    vae.decode(whole)
    assert len(calls) == 12


def test_the_configuration_has_every_key_of_an_autoencoder_kl(vae: RemoteAutoencoderKL) -> None:
    config = vae.config
    assert set(small_kl().config) - {"_use_default_values"} <= set(config)
    assert config.scaling_factor == config["scaling_factor"] == config.get("scaling_factor") == 1.0
    assert (config.shift_factor, config.latents_mean, config.latents_std) == (None, None, None)
    assert (config.latent_channels, len(config.block_out_channels), config.latent_space) == (3, 4, SPACE)
    assert not hasattr(config, "no_such_key")


def test_what_a_pipeline_registers_stays_here(vae: RemoteAutoencoderKL, server: FakeServer) -> None:
    vae.register_to_config(scaling_factor=0.08333)
    assert vae.config.scaling_factor == 0.08333
    assert RemoteAutoencoderKL.connect(server.target, latent_space=SPACE).config.scaling_factor == 1.0


def model(**changes: Any) -> ModelInfo:
    fields = {
        "name": "m", "class_name": "AutoencoderKL", "latent_space": "", "weights_digest": "0" * 64, "file_sha256": "",
        "latent_channels": 4, "downsample_factor": 8, "scale": (0.5,), "shift": (0.0,), "has_logvar": True,
        "fixed_size": None, "parameters": 1, "dtype": "float32", "device": "cpu", "config": {}, "loaded": True,
        "rewrites": False,
    }  # fmt: skip
    return ModelInfo(**{**fields, **changes})


@pytest.mark.parametrize(
    ("scale", "shift", "config", "wanted"),
    [
        ((0.5,), (0.0,), {}, (0.5, None, None, None)),
        ((0.5,), (0.25,), {}, (0.5, 0.25, None, None)),
        ((0.5,), (0.0,), {"scaling_factor": 0.5, "shift_factor": 0.0}, (0.5, 0.0, None, None)),
        # What the operator says stands over what the model's own configuration says.
        ((0.5,), (0.0,), {"scaling_factor": 0.18215}, (0.5, None, None, None)),
        ((0.5, 0.25), (1.0, 2.0), {"scaling_factor": 1.0}, (1.0, None, [1.0, 2.0], [2.0, 4.0])),
        ((0.5, 0.25), (0.0,), {}, (1.0, None, [0.0, 0.0], [2.0, 4.0])),
        (
            (0.25, 0.125), (1.0, 2.0),
            {"scaling_factor": 0.5, "latents_mean": [1.0, 2.0], "latents_std": [2.0, 4.0]},
            (0.5, None, [1.0, 2.0], [2.0, 4.0]),
        ),
    ],
)  # fmt: skip
def test_the_scaling_is_the_server_s_in_the_words_of_the_configuration(
    scale: Sequence[float], shift: Sequence[float], config: dict[str, Any], wanted: tuple[Any, ...]
) -> None:
    found = to_pipeline_config(model(scale=scale, shift=shift, config=config, latent_channels=2))
    assert tuple(found[key] for key in ("scaling_factor", "shift_factor", "latents_mean", "latents_std")) == wanted


def test_the_number_of_blocks_tells_the_downsampling_factor_whatever_the_class() -> None:
    for factor, config in ((8, {}), (32, {"block_out_channels": [64] * 4}), (4, {"block_out_channels": [1, 2, 3]})):
        blocks = to_pipeline_config(model(downsample_factor=factor, config=config))["block_out_channels"]
        assert 2 ** (len(blocks) - 1) == factor


def test_an_own_space_that_nobody_asked_for_is_refused_with_the_remedy(server: FakeServer) -> None:
    with pytest.raises(LatentSpaceMismatch, match=f"latent_space='{SPACE}'"):
        RemoteAutoencoderKL.connect(server.target)
    # Not even a VAE that looks the same is of that space, unless it says so.
    with pytest.raises(LatentSpaceMismatch, match="no published pipeline"):
        RemoteAutoencoderKL.connect(server.target, like=small_kl())


def test_another_space_than_the_expected_one_is_refused(vae: RemoteAutoencoderKL, server: FakeServer) -> None:
    with pytest.raises(LatentSpaceMismatch, match=f"'{SPACE}', not 'sd1'"):
        RemoteAutoencoderKL.connect(server.target, latent_space="sd1")
    other = small_kl()
    other.register_to_config(latent_space="sdxl")
    with pytest.raises(LatentSpaceMismatch, match="not 'sdxl'"):
        RemoteAutoencoderKL.connect(server.target, like=other)
    with pytest.raises(ValueError, match="give one"):
        RemoteAutoencoderKL.connect(server.target, like=other, latent_space="sd1")
    assert RemoteAutoencoderKL.connect(server.target, like=vae).info == vae.info


def test_a_published_space_needs_no_word(monkeypatch: pytest.MonkeyPatch, server: FakeServer) -> None:
    served_as(monkeypatch, latent_space="sd1")
    assert RemoteAutoencoderKL.connect(server.target).config.latent_space == "sd1"
    assert RemoteAutoencoderKL.connect(server.target, like=small_kl()).config.latent_space == "sd1"


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda: small_kl(channels=4), "3 channels instead of 4"),
        (lambda: small_kl(levels=3), "factor is 8 instead of 4"),
        (lambda: small_kl(scaling_factor=0.18215), "scale is 1 instead of 0.18215"),
        (lambda: small_kl(shift_factor=0.1), "shift is 0 instead of 0.1"),
        (lambda: small_kl(latents_mean=[0, 0, 0], latents_std=[1, 1, 2]), "scale is 1 instead of 1, 1, 0.5"),
    ],
)
def test_a_vae_that_is_not_like_the_one_it_replaces_is_refused(
    monkeypatch: pytest.MonkeyPatch, server: FakeServer, other: Any, difference: str
) -> None:
    served_as(monkeypatch, latent_space="")
    with pytest.raises(LatentSpaceMismatch, match=difference):
        RemoteAutoencoderKL.connect(server.target, like=other())


def test_it_has_the_dtype_and_the_device_of_the_vae_that_it_replaces(
    monkeypatch: pytest.MonkeyPatch, server: FakeServer
) -> None:
    served_as(monkeypatch, latent_space="sd1")
    for like in (small_kl().half(), RemoteAutoencoderKL.connect(server.target).to(torch.float16)):
        assert RemoteAutoencoderKL.connect(server.target, like=like).dtype == torch.float16
    # A VAE whose weights are offloaded part by part is on no device.
    away = RemoteAutoencoderKL.connect(server.target, like=small_kl().bfloat16().to("meta"))
    assert (away.dtype, away.device) == (torch.bfloat16, torch.device("cpu"))


def test_a_space_without_a_name_connects_with_a_warning_unless_the_weights_prove_it(
    monkeypatch: pytest.MonkeyPatch, server: FakeServer
) -> None:
    like = small_kl()
    served_as(monkeypatch, latent_space="")
    for expected in ({}, {"like": like}, {"latent_space": "sd1"}, {"like": small_kl().to("meta")}):
        remedy = "not, bit by bit, those of" if "like" in expected else "or pass like=pipe.vae"
        with pytest.warns(UserWarning, match=f"no named latent space.*{remedy}") as warned:
            RemoteAutoencoderKL.connect(server.target, **expected)
        assert warned[0].filename == __file__
    like = small_kl()
    served_as(monkeypatch, weights_digest=weights_digest(like))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RemoteAutoencoderKL.connect(server.target, like=like)


def test_the_digest_of_weights_is_the_server_s(tmp_path: Path) -> None:
    vae = small_kl()
    vae.save_pretrained(tmp_path)
    assert weights_digest(vae) == load_checkpoint(str(tmp_path)).weights_digest
    assert weights_digest(vae.half()) != load_checkpoint(str(tmp_path)).weights_digest


def test_a_model_that_is_not_there_or_has_no_spatial_latents_is_refused(
    monkeypatch: pytest.MonkeyPatch, server: FakeServer
) -> None:
    with pytest.raises(UnknownModel, match="there is fake"):
        RemoteAutoencoderKL.connect(server.target, model="other")
    served_as(monkeypatch, fixed_size=pb.ImageSize(height=64, width=64))
    with pytest.raises(ValueError, match="one vector"):
        RemoteAutoencoderKL.connect(server.target, latent_space=SPACE)


@pytest.mark.parametrize("name", ["AutoencoderKLFlux2", "AutoencoderKLQwenImage", "AutoencoderKLWan"])
def test_a_model_whose_pipelines_want_more_than_encoding_and_decoding_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, server: FakeServer
) -> None:
    served_as(monkeypatch, class_name=name)
    with pytest.raises(ValueError, match=f"is of {name}, whose pipelines use their VAE for more than encode"):
        RemoteAutoencoderKL.connect(server.target, latent_space=SPACE)


def test_changed_weights_are_an_error_unless_allowed_and_another_space_always(
    monkeypatch: pytest.MonkeyPatch, vae: RemoteAutoencoderKL, server: FakeServer, images: torch.Tensor
) -> None:
    lenient = RemoteAutoencoderKL.connect(server.target, latent_space=SPACE, allow_changed_weights=True)
    served_as(monkeypatch, weights_digest="1" * 64)
    for call, argument in ((vae.encode, images), (vae.decode, torch.zeros(1, 3, 2, 2))):
        with pytest.raises(WeightsChanged, match="111111111111 is not 000000000000"):
            call(argument)
    assert lenient.decode(lenient.encode(images).latent_dist.mode()).sample.shape == images.shape
    served_as(monkeypatch, latent_space="sdxl")
    with pytest.raises(LatentSpaceMismatch, match="'sdxl' is not"):
        lenient.encode(images)


def test_copies_and_pickles_hold_no_connection_and_make_their_own(
    vae: RemoteAutoencoderKL, images: torch.Tensor
) -> None:
    wanted = vae.encode(images).latent_dist.mode()
    vae.enable_slicing()
    for twin in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        assert type(twin) is RemoteAutoencoderKL
        assert (dict(twin.config), twin.info, twin.use_slicing) == (dict(vae.config), vae.info, True)
        assert not twin._served._client._connections.by_process
        twin.half()
        assert torch.equal(twin.float().encode(images).latent_dist.mode(), wanted)
        twin.close()
    assert vae.dtype == torch.float32


def test_another_process_uses_a_pickled_one(vae: RemoteAutoencoderKL, tmp_path: Path) -> None:
    path = tmp_path / "vae.pickle"
    path.write_bytes(pickle.dumps(vae))
    script = (
        "import pickle, sys, torch; vae = pickle.load(open(sys.argv[1], 'rb')); "
        "print(tuple(vae.encode(torch.zeros(1, 3, 16, 16)).latent_dist.mode().shape))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 3, 2, 2)", done.stderr


def test_threads_share_one(vae: RemoteAutoencoderKL, images: torch.Tensor) -> None:
    wanted = means(images)

    def there_and_back(index: int) -> bool:
        latents = vae.encode(images[index % 5][None]).latent_dist.mode()
        return torch.allclose(vae.decode(latents).sample[0, :, ::8, ::8], wanted[index % 5], atol=1e-5)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(there_and_back, range(40)))


def test_a_dropped_connection_is_waited_for(server: FakeServer, images: torch.Tensor) -> None:
    retry = Retry(attempts=2, initial_backoff_s=0.01, max_backoff_s=0.02)
    vae = RemoteAutoencoderKL.connect(server.target, latent_space=SPACE, retry=retry)
    server.fail_next(grpc.StatusCode.UNAVAILABLE, times=5)  # more than the channel tries by itself
    assert vae.encode(images).latent_dist.mode().shape == (5, 3, 2, 3)
    assert server.calls["Encode"] == 6


def test_a_full_queue_is_waited_for_as_long_as_the_server_says(
    vae: RemoteAutoencoderKL, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Overloaded(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
    full.retry_after_s = 7.0
    answers: list[Exception] = [full, full]
    pauses: list[float] = []

    @contextmanager
    def refusing(self: Connection) -> Iterator[None]:
        if answers:
            raise answers.pop()
        yield

    monkeypatch.setattr(Connection, "mapped_errors", refusing)
    monkeypatch.setattr(Connection, "pause", lambda self, seconds: pauses.append(seconds))
    assert vae.encode(images).latent_dist.mode().shape == (5, 3, 2, 3)
    assert pauses == [7.0, 7.0]


def test_a_call_whose_connection_another_thread_closes_is_made_again(
    vae: RemoteAutoencoderKL, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, closings = Connections.current, [vae.close]

    def current(self: Connections) -> Connection:
        connection = real(self)
        if closings:
            closings.pop()()
        return connection

    monkeypatch.setattr(Connections, "current", current)
    assert vae.encode(images).latent_dist.mode().shape == (5, 3, 2, 3)
    assert closings == []


def test_a_server_that_stays_away_is_an_error_in_the_end(server: FakeServer, images: torch.Tensor) -> None:
    retry = Retry(attempts=1, initial_backoff_s=0.01, max_backoff_s=0.02, reconnect_s=0.1)
    vae = RemoteAutoencoderKL.connect(server.target, latent_space=SPACE, retry=retry)
    server.fail_next(grpc.StatusCode.UNAVAILABLE, times=10_000)
    with pytest.raises(Unavailable):
        vae.encode(images)
    assert server.calls["Encode"] > 1


def test_gradients_and_networks_are_refused_in_clear_words(vae: RemoteAutoencoderKL, images: torch.Tensor) -> None:
    watched = images.clone().requires_grad_()
    calls: list[tuple[Any, Any]] = [(vae.encode, watched), (vae.decode, watched), (vae.requires_grad_, True)]
    for call, argument in calls:
        with pytest.raises(RuntimeError, match=r"AutoencoderKL\.from_pretrained"):
            call(argument)
    with torch.no_grad():
        assert vae.encode(watched).latent_dist.mode().shape == (5, 3, 2, 3)
    assert vae.requires_grad_(False) is vae
    assert not any(parameter.requires_grad for parameter in vae.parameters())
    for name in ("encoder", "decoder", "quant_conv"):
        assert not hasattr(vae, name)
        with pytest.raises(AttributeError, match=f"there is no {name} here"):
            getattr(vae, name)


@pytest.mark.parametrize("shape", [(3, 16, 16), (0, 3, 16, 16), (1, 3, 1, 16, 16)])
def test_a_tensor_that_is_no_batch_is_refused(vae: RemoteAutoencoderKL, shape: tuple[int, ...]) -> None:
    for call in (vae.encode, vae.decode):
        with pytest.raises(ValueError, match="each side at least 1"):
            call(torch.zeros(shape))


def test_a_saved_one_connects_again_to_the_same_model(vae: RemoteAutoencoderKL, tmp_path: Path) -> None:
    vae.save_pretrained(tmp_path / "vae", safe_serialization=True)
    assert [path.name for path in (tmp_path / "vae").iterdir()] == ["config.json"]
    written = json.loads((tmp_path / "vae" / "config.json").read_text())
    assert written["_class_name"] == "RemoteAutoencoderKL"
    assert written["remote"]["weights_digest"] == vae.info.weights_digest
    again = RemoteAutoencoderKL.from_pretrained(
        tmp_path, subfolder="vae", torch_dtype=torch.float16, device_map=None, variant="fp16"
    )
    assert (again.info, again.dtype) == (vae.info, torch.float16)
    with pytest.raises(ValueError, match="no weights to push"):
        vae.save_pretrained(tmp_path, push_to_hub=True)


def test_a_saved_one_does_not_connect_to_another_model(
    monkeypatch: pytest.MonkeyPatch, vae: RemoteAutoencoderKL, tmp_path: Path
) -> None:
    vae.save_pretrained(tmp_path)
    served_as(monkeypatch, weights_digest="1" * 64)
    with pytest.raises(WeightsChanged):
        RemoteAutoencoderKL.from_pretrained(tmp_path)
    assert RemoteAutoencoderKL.from_pretrained(tmp_path, allow_changed_weights=True).info.weights_digest == "1" * 64
    served_as(monkeypatch, latent_space="sd1")
    with pytest.raises(LatentSpaceMismatch):
        RemoteAutoencoderKL.from_pretrained(tmp_path, allow_changed_weights=True)


def test_a_token_of_the_environment_goes_to_no_address_that_only_a_file_names(
    monkeypatch: pytest.MonkeyPatch, vae: RemoteAutoencoderKL, server: FakeServer, tmp_path: Path
) -> None:
    vae.save_pretrained(tmp_path)
    monkeypatch.setenv(TOKEN, "secret")
    with pytest.raises(ValueError, match="pass token="):
        RemoteAutoencoderKL.from_pretrained(tmp_path)
    assert RemoteAutoencoderKL.from_pretrained(tmp_path, token="mine").info == vae.info
    monkeypatch.setenv(SAVED_TARGET, server.target)
    assert RemoteAutoencoderKL.from_pretrained(tmp_path).info == vae.info


def test_the_ways_to_load_weights_say_how_to_serve_them(tmp_path: Path) -> None:
    small_kl().save_pretrained(tmp_path)
    for text in ((tmp_path / "config.json").read_text(), "no json", "[]", '{"remote": {"target": "localhost:1"}}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match="latentwire serve --model"):
            RemoteAutoencoderKL.from_pretrained(tmp_path)
    for refused in (RemoteAutoencoderKL.from_single_file, RemoteAutoencoderKL.from_config):
        with pytest.raises(NotImplementedError, match=r"RemoteAutoencoderKL\.connect"):
            refused("vae.safetensors")


def test_it_shows_where_its_model_is(vae: RemoteAutoencoderKL, server: FakeServer) -> None:
    assert f"'fake' on {server.target}, {SPACE} latent space" in repr(vae)
