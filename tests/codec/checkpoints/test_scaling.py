# SPDX-License-Identifier: Apache-2.0
"""The first that speaks decides the scaling; where all are silent it is refused, never guessed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from latentwire_codec.checkpoints.families import BY_NAME, Family
from latentwire_codec.checkpoints.scaling import (
    Detected,
    Requested,
    declared_by,
    declared_by_batch_norm,
    in_config,
    resolve,
)
from latentwire_core.errors import CheckpointError
from latentwire_core.scaling import Scaling

SD = [BY_NAME[name] for name in ("sd1", "sdxl", "playground25")]
SD16 = [BY_NAME[name] for name in ("sd3", "flux1")]
TINY = [BY_NAME[name] for name in ("taesd", "taesdxl")]
DEFAULT = {"scaling_factor": 0.18215, "shift_factor": None}


def detected(
    candidates: list[Family],
    declared: Mapping[str, Any] | None = None,
    family: str = "",
    defaults: bool = False,
) -> Detected:
    """What is known of a VAE of the class whose own factor is 0.18215."""
    declared = declared or {}
    return Detected(Path("any.safetensors"), {**DEFAULT, **declared}, declared, {}, candidates, family, defaults)


def refused(requested: Requested, known: Detected) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(requested, known)
    return str(caught.value)


# The order


def test_the_caller_s_numbers_stand_over_everything() -> None:
    known = detected(SD, {"scaling_factor": 0.13025}, "sdxl")
    assert resolve(Requested(scale=0.5, shift=0.25), known) == (Scaling((0.5,), (0.25,)), "")
    assert resolve(Requested(scale=[1, 2, 3, 4], shift=(0, 0, 0, 1)), known)[0] == Scaling((1, 2, 3, 4), (0, 0, 0, 1))


def test_a_configuration_stands_over_the_family() -> None:
    declared = {"scaling_factor": 0.5, "shift_factor": 0.125}
    assert resolve(Requested(), detected(SD, declared, "sdxl"))[0] == Scaling((0.5,), (0.125,))
    assert resolve(Requested(latent_space="sdxl"), detected(SD, declared)) == (Scaling((0.5,), (0.125,)), "sdxl")


def test_the_family_that_the_caller_names_stands_over_the_one_that_is_shown() -> None:
    assert resolve(Requested(latent_space="sdxl"), detected(SD, family="sd1")) == (Scaling((0.13025,)), "sdxl")


def test_a_name_over_another_family_s_factors_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    resolve(Requested(latent_space="sdxl"), detected(SD, {"scaling_factor": 0.13025}))
    assert not caplog.messages
    resolve(Requested(latent_space="sdxl"), detected(SD, {"scaling_factor": 0.18215}))
    assert "named sdxl, but scaled as none of that family's are: by 0.18215" in caplog.text
    assert "sdxl (scale 0.13025, shift 0)" in caplog.text


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"shift_factor": 0.2}, "tells shift_factor, but no scaling_factor"),
        ({"latents_mean": [0.0] * 4}, "tells latents_mean, but no latents_std"),
        ({"latents_std": [1.0] * 4, "scaling_factor": 0.5}, "tells latents_std, but no latents_mean"),
    ],
)
def test_half_of_what_belongs_together_is_refused(declared: Mapping[str, Any], message: str) -> None:
    assert message in refused(Requested(), detected(SD, declared, "sd1"))


def test_a_family_that_is_shown_has_its_factors() -> None:
    assert resolve(Requested(), detected(SD, family="sd1")) == (Scaling((0.18215,)), "sd1")
    assert resolve(Requested(), detected(SD16, family="flux1")) == (Scaling((0.3611,), (0.1159,)), "flux1")


def test_a_network_that_only_one_family_has_decides() -> None:
    upscaler = BY_NAME["sd-x4-upscaler"]
    assert resolve(Requested(), detected([upscaler])) == (Scaling((0.08333,)), "sd-x4-upscaler")


def test_where_families_agree_on_the_factors_only_the_name_is_open() -> None:
    assert resolve(Requested(), detected(TINY)) == (Scaling((1.0,)), "")


def test_the_class_s_own_factor_stands_for_folders_only() -> None:
    assert resolve(Requested(), detected([], defaults=True)) == (Scaling((0.18215,)), "")
    assert "its scaling is not known" in refused(Requested(), detected([]))


# What is refused


def test_where_nothing_tells_the_candidates_and_the_remedies_are_named() -> None:
    message = refused(Requested(), detected(SD))
    assert "sd1 (scale 0.18215, shift 0) or sdxl (scale 0.13025, shift 0) or playground25" in message
    assert "give latent_space (a family's name) or scale, for a server as --latent-space or --scale, or" in message
    assert "put any.json beside it" in message


def test_a_family_that_has_no_such_network_does_not_decide() -> None:
    assert "its tensors fit sd1" in refused(Requested(latent_space="flux1"), detected(SD))
    assert "its tensors fit sd1" in refused(Requested(), detected(SD, family="flux1"))


def test_a_space_of_one_s_own_decides_nothing() -> None:
    assert "its scaling is not known" in refused(Requested(latent_space="mine@1"), detected(SD))
    assert resolve(Requested(scale=2, latent_space="mine@1"), detected(SD)) == (Scaling((2.0,)), "mine@1")


def test_a_shift_without_a_scale_is_refused() -> None:
    assert "give scale too" in refused(Requested(shift=0.5), detected(SD))


def test_a_scale_without_a_shift_is_refused_where_latents_of_that_shape_are_shifted() -> None:
    message = refused(Requested(scale=0.36), detected(SD16))
    assert "scale is 0.36, which is none of sd3 (scale 1.5305, shift 0.0609) or flux1" in message
    assert "give shift too" in message


@pytest.mark.parametrize("number", ["large", [1.0, "x"], object()])
def test_what_is_no_number_is_refused(number: Any) -> None:
    assert "give a number, or one for each channel" in refused(Requested(scale=1.0, shift=number), detected(SD))
    with pytest.raises(CheckpointError):
        declared_by({"scaling_factor": number})


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf"), [1.0, 0.0]])
def test_a_scale_that_cannot_be_undone_is_refused(scale: Any) -> None:
    assert "cannot be undone" in refused(Requested(scale=scale), detected(SD))


# What completes what


def test_a_family_s_scale_brings_its_shift_and_its_name() -> None:
    assert resolve(Requested(scale=0.3611), detected(SD16)) == (Scaling((0.3611,), (0.1159,)), "flux1")
    assert resolve(Requested(scale=0.13025), detected(SD)) == (Scaling((0.13025,), (0.0,)), "sdxl")


def test_a_scale_leaves_the_shift_of_the_configuration() -> None:
    declared = {"scaling_factor": 0.5, "shift_factor": 0.125}
    assert resolve(Requested(scale=2), detected([], declared))[0] == Scaling((2.0,), (0.125,))


def test_a_scale_leaves_the_shift_where_one_family_alone_has_the_network() -> None:
    wan = BY_NAME["wan21"]
    assert wan.scaling is not None
    assert resolve(Requested(scale=0.5), detected([wan]))[0] == Scaling((0.5,), wan.scaling.shift)
    known = Detected(
        where=Path("any.safetensors"),
        config={"latent_channels": 1},
        declared={},
        tensors={"bn.running_mean": torch.full((4,), 3.0), "bn.running_var": torch.ones(4)},
        candidates=[BY_NAME["flux2"]],
        family="",
        defaults=False,
    )
    assert resolve(Requested(scale=0.5), known)[0] == Scaling((0.5,), (3.0,))


def test_a_shift_leaves_the_scale_that_is_known() -> None:
    assert resolve(Requested(shift=0.5), detected(SD, family="sd1")) == (Scaling((0.18215,), (0.5,)), "")


def test_a_scale_of_no_family_s_is_taken_unshifted_where_none_is_shifted() -> None:
    assert resolve(Requested(scale=0.7), detected(SD)) == (Scaling((0.7,), (0.0,)), "")
    assert resolve(Requested(scale=0.7), detected([])) == (Scaling((0.7,), (0.0,)), "")


# Names


@pytest.mark.parametrize(
    ("declared", "space"),
    [
        ({"scaling_factor": 0.18215}, "sd1"),
        ({"scaling_factor": 0.13025}, "sdxl"),
        ({"scaling_factor": 0.2}, ""),
        ({"scaling_factor": 0.18215, "latent_space": "mine@1"}, "mine@1"),
        (
            {
                "scaling_factor": 0.5,
                "latents_mean": [-1.6574, 1.886, -1.383, 2.5155],
                "latents_std": [8.4927, 5.9022, 6.5498, 5.2299],
            },
            "playground25",
        ),
    ],
)
def test_a_known_network_with_known_factors_has_a_known_space(declared: dict[str, Any], space: str) -> None:
    assert resolve(Requested(), detected(SD, declared))[1] == space
    assert resolve(Requested(), detected([], declared))[1] == declared.get("latent_space", "")
    assert resolve(Requested(latent_space="yours"), detected(SD, declared))[1] == "yours"


def test_a_configuration_that_names_a_family_has_its_factors() -> None:
    assert resolve(Requested(), detected(SD, {"latent_space": "sdxl"})) == (Scaling((0.13025,)), "sdxl")


# Written down again


@pytest.mark.parametrize(
    ("scaling", "config", "changes"),
    [
        (Scaling((0.18215,)), DEFAULT, {}),
        (Scaling((0.13025,)), DEFAULT, {"scaling_factor": 0.13025}),
        (Scaling((0.3611,), (0.1159,)), DEFAULT, {"scaling_factor": 0.3611, "shift_factor": 0.1159}),
        (Scaling((2.0,)), {"scaling_factor": 1.0, "shift_factor": 0.0}, {"scaling_factor": 2.0}),
        (Scaling((2.0,)), {"scaling_factor": 1.0}, {"scaling_factor": 2.0}),
        (
            Scaling((0.5, 0.25), (1.0,)),
            {**DEFAULT, "latents_mean": None, "latents_std": None},
            {"scaling_factor": 1.0, "latents_mean": [1.0, 1.0], "latents_std": [2.0, 4.0]},
        ),
        (
            Scaling((0.5,)),
            {"latents_mean": [1.0, 2.0], "latents_std": [1.0, 1.0]},
            {"latents_mean": [0.0, 0.0], "latents_std": [2.0, 2.0]},
        ),
        (
            Scaling((0.5,)),
            {**DEFAULT, "latents_mean": [1.0, 2.0], "latents_std": [1.0, 1.0]},
            {"scaling_factor": 0.5, "latents_mean": None, "latents_std": None},
        ),
        (Scaling((0.5, 0.25)), {"batch_norm_eps": 1e-4}, {}),
    ],
)
def test_a_configuration_tells_the_factors_that_were_decided(
    scaling: Scaling, config: dict[str, Any], changes: dict[str, Any]
) -> None:
    written = in_config(scaling, config)
    assert written == {**config, **changes}
    if "batch_norm_eps" not in config:
        declared = declared_by(written)
        assert declared is not None
        assert {*declared.scale} == {*scaling.scale}
        assert {*declared.shift} == {*scaling.shift}


# Weights that hold the factors


def test_a_batch_norm_is_pooled_over_the_four_places_of_a_patch() -> None:
    torch.manual_seed(0)
    patches = torch.randn(20_000, 2, 4) * (torch.arange(8.0).reshape(2, 4) + 1) + torch.arange(8.0).reshape(2, 4)
    flat = patches.reshape(-1, 8)
    tensors = {"bn.running_mean": flat.mean(0), "bn.running_var": flat.var(0)}
    scaling = declared_by_batch_norm(tensors, {"latent_channels": 2})
    assert scaling is not None
    for channel in range(2):
        scaled = (patches[:, channel] - scaling.shift[channel]) * scaling.scale[channel]
        assert float(scaled.mean()) == pytest.approx(0, abs=1e-3)
        assert float(scaled.std()) == pytest.approx(1, abs=1e-3)
    assert declared_by_batch_norm({}, {}) is None
