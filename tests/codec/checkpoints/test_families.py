# SPDX-License-Identifier: Apache-2.0
"""What is known about the VAEs that people use, and which of them a file is."""

import json
import math
from pathlib import Path

import pytest

from latentwire_codec.checkpoints.families import (
    BY_NAME,
    DIGESTS,
    FAMILIES,
    candidates,
    companion_family,
    registered_family,
)
from latentwire_codec.networks.calling import CALLINGS
from latentwire_core.errors import CheckpointError

SD = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
}
ATTENTION = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
SIZE = "model.diffusion_model.label_emb.0.0.weight"


def named(class_name: str, config: dict[str, object]) -> set[str]:
    return {family.name for family in candidates(class_name, config)}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_complete(family: object) -> None:
    assert family in FAMILIES
    known = next(one for one in FAMILIES if one is family)
    assert known.class_name in CALLINGS
    assert BY_NAME[known.name] is known  # no two have one name
    if known.scaling is not None:
        channels = known.network.get("latent_channels", known.network.get("z_dim"))
        assert {len(known.scaling.scale), len(known.scaling.shift)} <= {1, channels}
        assert all(math.isfinite(number) and number for number in known.scaling.scale)


def test_shapes_leave_several_families_open() -> None:
    assert named("AutoencoderKL", SD) == {"sd1", "sdxl", "playground25"}
    sixteen = {**SD, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
    assert named("AutoencoderKL", sixteen) == {"sd3", "flux1"}


def test_shapes_alone_tell_the_upscaler_and_flux2() -> None:
    assert named("AutoencoderKL", {**SD, "block_out_channels": (128, 256, 512)}) == {"sd-x4-upscaler"}
    assert named("AutoencoderKLFlux2", {**SD, "latent_channels": 32}) == {"flux2"}


def test_cogview_s_network_has_three_layers_in_a_block() -> None:
    sixteen = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
    cogview = {**sixteen, "block_out_channels": [128, 512, 1024, 1024], "layers_per_block": 3}
    assert named("AutoencoderKL", cogview) == {"cogview4"}


@pytest.mark.parametrize("other", [{"latent_channels": 8}, {"block_out_channels": [64] * 4}, {"layers_per_block": 1}])
def test_another_network_is_no_family_s(other: dict[str, object]) -> None:
    assert named("AutoencoderKL", {**SD, **other}) == set()


def test_normalised_families_do_what_their_pipelines_do() -> None:
    playground = BY_NAME["playground25"].scaling
    assert playground is not None
    assert playground.scale[0] == pytest.approx(0.5 / 8.4927)
    assert playground.shift[0] == -1.6574


@pytest.mark.parametrize(
    ("shapes", "channels", "levels", "family"),
    [
        ({ATTENTION: (320, 768)}, 4, 4, "sd1"),
        ({ATTENTION: (320, 2048), SIZE: (1280, 2816)}, 4, 4, "sdxl"),
        ({ATTENTION: (384, 1280), SIZE: (1536, 2560)}, 4, 4, "sdxl"),  # the refiner
        ({ATTENTION: (320, 1280)}, 4, 4, ""),  # text2img-large
        ({ATTENTION: (320, 1024), SIZE: (1280, 2048)}, 4, 4, "sd1"),  # unCLIP of SD 2.1
        ({ATTENTION: (320, 2048), SIZE: (1280, 2816), "edm_mean": (4,)}, 4, 4, "playground25"),
        ({ATTENTION: (320, 1024)}, 4, 3, ""),  # the upscaler's UNet, of SD 2's width: its VAE has f = 4
        ({ATTENTION: (320, 999)}, 4, 4, ""),
        ({}, 4, 4, ""),
        ({"model.diffusion_model.single_stream_modulation.lin.weight": (2,)}, 32, 4, "flux2"),
        ({"model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale": (2,)}, 16, 4, "flux1"),
        ({"model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale": (2,)}, 32, 4, ""),
    ],
)
def test_what_else_is_in_a_checkpoint_tells_the_family_where_the_latents_fit(
    shapes: dict[str, tuple[int, ...]], channels: int, levels: int, family: str
) -> None:
    assert companion_family(shapes, channels, levels) == family


# Registries of digests


def test_the_registry_in_the_package_names_files_that_are_known_everywhere() -> None:
    assert registered_family("735e4c3a447a3255760d7f86845f09f937809baa529c17370d83e4c3758f3c75") == "sd1"
    assert registered_family("0" * 64, "63aeecb90ff7bc1c115395962d3e803571385b61938377bc7089b36e81e92e2e") == "sdxl"
    assert registered_family("0" * 64) == ""
    assert registered_family("") == ""
    assert all(len(digest) == 64 for digest in json.loads(DIGESTS.read_text()))


def test_a_registry_of_one_s_own_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.json").write_text('{"0123456789": "flux1", "735E4C3A44": "sdxl"}')
    monkeypatch.setenv("LATENTWIRE_DIGESTS", str(tmp_path / "mine.json"))
    assert registered_family("0123456789" + "a" * 54) == "flux1"
    assert registered_family("735e4c3a447a3255760d7f86845f09f937809baa529c17370d83e4c3758f3c75") == "sdxl"
    assert registered_family("63aeecb90ff7bc1c115395962d3e803571385b61938377bc7089b36e81e92e2e") == "sdxl"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "holds no JSON object"),
        ('{"012345678": "sd1"}', "does not begin a SHA-256; give 10 to 64 hex digits"),
        ('{"0123456789": "sd9"}', "'sd9' is no family that is known; known: sd1, "),
        ('{"0123456789": 1}', "is no family that is known"),
        ('{"0123456789": []}', "is no family that is known"),
    ],
)
def test_a_broken_registry_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    monkeypatch.setenv("LATENTWIRE_DIGESTS", str(tmp_path / "mine.json"))
    with pytest.raises(CheckpointError) as caught:
        registered_family("0" * 64)
    assert message in str(caught.value)


def test_a_registry_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTWIRE_DIGESTS", str(tmp_path / "absent.json"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        registered_family("0" * 64)
