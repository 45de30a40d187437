# SPDX-License-Identifier: Apache-2.0
"""The options of a server: their ranges, and the messages of values that are refused."""

import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from latentwire_server import app
from latentwire_server.config import ModelSource, ServerConfig, with_options
from latentwire_server.errors import ServerError
from latentwire_server.options import options_of


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("f8c4", "f8c4", "f8c4"),
        ("sd=stabilityai/sd-vae-ft-mse", "sd", "stabilityai/sd-vae-ft-mse"),
        ("stabilityai/sd-vae-ft-mse", "sd-vae-ft-mse", "stabilityai/sd-vae-ft-mse"),
        ("/models/vae/", "vae", "/models/vae/"),
        ("x=/models/a=b", "x", "/models/a=b"),
        ("/models/sdxl.vae.safetensors", "sdxl.vae", "/models/sdxl.vae.safetensors"),
        ("/models/ae.sft", "ae", "/models/ae.sft"),
        ("/models/VAE.CKPT", "VAE", "/models/VAE.CKPT"),
        ("/models/v1.5", "v1.5", "/models/v1.5"),
        ("/runs/lr=1e-4/vae", "vae", "/runs/lr=1e-4/vae"),
        ("./lr=1e-4/vae.safetensors", "vae", "./lr=1e-4/vae.safetensors"),
        ("/runs/lr=1e-4", "lr=1e-4", "/runs/lr=1e-4"),
    ],
)
def test_a_model_is_a_name_and_a_source(text: str, name: str, source: str) -> None:
    assert ModelSource.parse(text) == ModelSource(name, source)


@pytest.mark.parametrize("text", ["", "=", "name=", "=source", "/"])
def test_a_model_without_a_name_or_a_source_is_refused(text: str) -> None:
    with pytest.raises(ServerError, match=r"--model .* is not of the form \[NAME=\]SOURCE"):
        ModelSource.parse(text)


def test_a_text_that_is_an_existing_file_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("epoch=3-step=1000.ckpt").touch()
    assert ModelSource.parse("epoch=3-step=1000.ckpt") == ModelSource("epoch=3-step=1000", "epoch=3-step=1000.ckpt")
    assert ModelSource.parse("vae=epoch=3-step=1000.ckpt") == ModelSource("vae", "epoch=3-step=1000.ckpt")


MODELS = (ModelSource("sd", "/sd"), ModelSource("flux", "/flux"))


def test_what_is_said_of_models_goes_to_those_it_names() -> None:
    options = {"scale": ["sd=0.18215", "flux=0.3611"], "shift": ["flux=0.1159"], "latent_space": ["sd=sd1"]}
    assert with_options(MODELS, options) == (
        ModelSource("sd", "/sd", scale=(0.18215,), latent_space="sd1"),
        ModelSource("flux", "/flux", scale=(0.3611,), shift=(0.1159,)),
    )
    assert with_options(MODELS, {"scale": (), "shift": ()}) == MODELS


def test_what_names_no_model_is_for_the_only_one() -> None:
    options = {"scale": ["2,-3.5"], "latent_space": [""]}
    (model,) = with_options(MODELS[:1], options)
    assert (model.scale, model.shift, model.latent_space) == ((2.0, -3.5), None, "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": ["1"]}, "--scale 1 is for which of sd, flux? Write --scale NAME=1"),
        ({"latent_space": ["sdxl=x"]}, "--latent-space sdxl=x: there is no model 'sdxl'; there is sd, flux"),
        ({"shift": ["sd=1", "sd=2"]}, "--shift is given twice for sd"),
        ({"scale": ["sd=one"]}, "--scale is 'one'; one number, or one for each channel with commas, is needed"),
        ({"scale": ["sd=1,,2"]}, "--scale is '1,,2'; one number"),
        ({"scale": ["sd="]}, "--scale is ''; one number"),
        ({"scale": ["sd=1,nan"]}, "--scale of sd is 1,nan; finite numbers are needed"),
        ({"shift": ["sd=inf"]}, "--shift of sd is inf; finite numbers are needed"),
        ({"scale": ["sd=1,0"]}, "--scale of sd is 1,0; a scaling by 0 cannot be undone"),
    ],
)
def test_what_cannot_be_said_of_a_model_is_refused(options: dict[str, list[str]], words: str) -> None:
    with pytest.raises(ServerError) as caught:
        with_options(MODELS, options)
    assert str(caught.value).startswith(words)


def test_the_default_configuration_is_valid_and_serves_the_bundled_models_on_loopback() -> None:
    config = ServerConfig()
    assert config.models == (ModelSource("f8c4", "f8c4"), ModelSource("f8c32", "f8c32"))
    assert config.host == "127.0.0.1"
    assert config.max_message_bytes == 64 * 2**20


RANGES = {
    "model_memory_mib": (1, 2**24),
    "activation_memory_mib": (1, 2**24),
    "workers": (1, 1024),
    "port": (0, 65535),
    "http_port": (0, 65535),
    "metrics_port": (0, 65535),
    "max_delay_ms": (0, 10_000),
    "max_batch_pixels": (1, 2**40),
    "max_batch": (1, 65_536),
    "max_queue": (1, 2**20),
    "max_message_mib": (1, 2047),
    "max_side": (8, 2**20 - 1),
    "max_connections": (1, 2**20),
    "max_calls": (1, 2**20),
    "receive_timeout_s": (1, 86_400),
    "stream_window": (1, 4096),
    "max_refinement": (0, 1_000_000),
    "drain_timeout_s": (0, 86_400),
}


@pytest.mark.parametrize("name", RANGES)
def test_the_ends_of_a_range_are_inside(name: str) -> None:
    for value in RANGES[name]:
        changed: dict[str, Any] = {name: value}
        assert getattr(ServerConfig(**changed), name) == value


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("end", [0, 1])
def test_beyond_a_range_the_flag_the_value_and_the_range_are_told(name: str, end: int) -> None:
    least, most = RANGES[name]
    value = (least - 1, most + 1)[end]
    changed: dict[str, Any] = {name: value}
    with pytest.raises(ServerError) as caught:
        ServerConfig(**changed)
    flag = "--" + name.replace("_memory_mib", "_memory").replace("_", "-")
    assert str(caught.value) == f"{flag} is {value}; it must be in {least}..{most}"


@pytest.mark.parametrize("name", ["max_delay_ms", "drain_timeout_s"])
def test_not_a_number_is_out_of_range(name: str) -> None:
    changed: dict[str, Any] = {name: float("nan")}
    with pytest.raises(ServerError, match="is nan; it must be in"):
        ServerConfig(**changed)


def test_every_number_has_a_range() -> None:
    numbers = {f.name for f in fields(ServerConfig) if str(f.type).startswith(("int", "float"))}
    numbers |= {f.name for f in fields(ServerConfig) if f.type in (int, float)}
    assert numbers <= set(RANGES)
    assert len(numbers) >= 8


def test_a_word_that_is_no_choice_is_refused_with_the_choices() -> None:
    with pytest.raises(ServerError, match="--dtype is 'half'; it must be one of auto, float32, bfloat16, float16"):
        ServerConfig(dtype="half")


def test_every_field_is_an_option_with_a_flag_of_its_own() -> None:
    options = dict(options_of(ServerConfig))
    assert options.keys() == {f.name for f in fields(ServerConfig)}
    assert len({option.variable for option in options.values()}) == len(options)
    assert all(option.text and option.panel for option in options.values())


@pytest.mark.parametrize(
    ("name", "flag", "variable", "default"),
    [
        ("max_queue", "--max-queue", "LATENTWIRE_MAX_QUEUE", "256"),
        ("oip", "--oip", "LATENTWIRE_OIP", "on"),
        ("drain_timeout_s", "--drain-timeout-s", "LATENTWIRE_DRAIN_TIMEOUT_S", "60"),
        ("model_memory_mib", "--model-memory", "LATENTWIRE_MODEL_MEMORY", "no limit"),
        ("token", "--token", "LATENTWIRE_TOKEN", ""),
    ],
)
def test_an_option_knows_its_flag_its_variable_and_its_default(
    name: str, flag: str, variable: str, default: str
) -> None:
    option = dict(options_of(ServerConfig))[name]
    assert (option.name, option.variable, option.default) == (flag, variable, default)


def test_the_help_of_a_number_states_its_range() -> None:
    options = dict(options_of(ServerConfig))
    for name, (least, most) in RANGES.items():
        assert f"{least}..{most}" in options[name].help


def test_no_model_is_refused() -> None:
    with pytest.raises(ServerError, match="give at least one --model"):
        ServerConfig(models=())


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(ServerError, match="two models share a name in vae, vae"):
        ServerConfig(models=(ModelSource("vae", "a"), ModelSource("vae", "b")))


@pytest.mark.parametrize(("cert", "key"), [(Path("cert.pem"), None), (None, Path("key.pem"))], ids=["cert", "key"])
def test_half_a_certificate_is_refused(cert: Path | None, key: Path | None) -> None:
    with pytest.raises(ServerError, match="--tls-cert and --tls-key are needed together"):
        ServerConfig(tls_cert=cert, tls_key=key)


def test_a_worker_has_a_device_of_the_list_or_shares_the_only_one() -> None:
    assert ServerConfig().worker_devices == ("auto",)
    assert ServerConfig(device="cpu", workers=3).worker_devices == ("cpu",) * 3
    assert ServerConfig(device="cuda:0, cuda:1").worker_devices == ("cuda:0", "cuda:1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": ""}, "--device is ''; write a name"),
        ({"device": "cuda:0,"}, "--device is 'cuda:0,'; write a name"),
        ({"device": "cuda:0,cuda:1", "workers": 2}, "--workers is 2, and --device names 2 devices"),
        ({"device": "cpu,cpu"}, "--device names cpu twice; name each device once, or that one alone with --workers 2"),
        ({"metrics_port": 65534, "workers": 3}, "--metrics-port is 65534; 3 workers need as many ports from there on"),
    ],
)
def test_workers_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ServerError) as caught:
        ServerConfig(**options)
    assert str(caught.value).startswith(words)


def test_an_empty_token_is_refused() -> None:
    with pytest.raises(ServerError, match="the token is empty"):
        ServerConfig(token="")


@pytest.mark.parametrize("token", ["line\n", "pässword", "tab\tbed", "nul\0", " first", "last "])
def test_a_token_that_no_client_could_send_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ServerError, match=r"the token (has a character|begins or ends)") as caught:
        ServerConfig(token=token)
    assert token not in str(caught.value)


@pytest.mark.parametrize("token", ["s3cret", "open sesame", "~!@#$%^&*()=,;"])
def test_a_token_may_be_anything_that_a_header_holds(token: str) -> None:
    assert ServerConfig(token=token).token == token


def test_an_image_may_have_as_many_pixels_as_fit_a_message() -> None:
    limits = ServerConfig(max_message_mib=3, max_side=64).image_limits
    assert (limits.max_side, limits.max_pixels) == (64, 2**20)


def test_a_configuration_shows_everything_but_its_token() -> None:
    shown = repr(ServerConfig(token="secret", port=1234))
    assert "1234" in shown
    assert "secret" not in shown


@pytest.mark.parametrize("token", ["secret", None])
async def test_the_log_of_the_start_says_whether_there_is_a_token_and_not_which(
    token: str | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoServer:
        def __init__(self, config: ServerConfig, **options: bool) -> None:
            raise ServerError("enough seen")

    monkeypatch.setattr(app, "Server", NoServer)
    caplog.set_level(logging.INFO, "latentwire")
    logger = logging.getLogger("latentwire")
    logger.addHandler(caplog.handler)
    try:
        with pytest.raises(ServerError, match="enough seen"):
            await app._run(ServerConfig(token=token, port=1234), lambda ports: None)
    finally:
        logger.removeHandler(caplog.handler)
    (record,) = {id(r): r for r in caplog.records if "configuration" in r.getMessage()}.values()
    text = record.getMessage()
    assert "'port': 1234" in text
    assert f"'token': {token is not None}" in text
    assert "secret" not in text
