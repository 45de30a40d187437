# SPDX-License-Identifier: Apache-2.0
"""Tests of recipes and of what overrides them."""

from pathlib import Path

import pytest

from latentwire_train.config import Architecture, AutoencoderKind, ConfigError, OptimizerName
from latentwire_train.networks import build_network
from latentwire_train.recipes import config_from, load_config, recipe_names


def test_every_bundled_recipe_describes_a_network_that_takes_its_images() -> None:
    assert {"autoencoder-kl", "f8c32", "f8c4", "latent-vae", "vector"} <= set(recipe_names())
    for name in recipe_names():
        config = load_config(name)
        network = build_network(config.model, config.data.size)
        channels, height, width = network.latent_shape(config.data.size)
        assert channels == {"vector": 128, "f8c32": 32}.get(name, 4)
        assert height == width == (1 if config.model.family is Architecture.VECTOR else config.data.size // 8)


def test_an_override_reaches_every_table_and_keeps_its_type() -> None:
    config = load_config(
        "vector",
        ["model.kind=ae", "schedule.steps=7", "loss.weights.l1=0.5", "data.size=32", "schedule.betas=[0.5, 0.9]"],
    )
    assert config.model.kind is AutoencoderKind.AE
    assert (config.schedule.steps, config.schedule.minutes) == (7, 0)
    assert config.loss.weights.l1 == 0.5
    assert config.schedule.betas == (0.5, 0.9)
    assert config.data.size == 32


def test_a_configuration_comes_back_from_its_plain_values() -> None:
    config = load_config("latent-vae", ["schedule.optimizer=muon"])
    assert config.schedule.optimizer is OptimizerName.MUON
    assert config_from(config.as_dict()) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.step=1", r"schedule\.step is not known; schedule has"),
        ("schedule.steps=many", r"schedule\.steps is 'many'; it must be a valid integer"),
        ("schedule.steps=true", r"schedule\.steps is True; it must be a valid integer"),
        ("model.family=gan", r"model\.family is 'gan'; it must be 'latent-vae', 'autoencoder-kl' or 'vector'"),
        ("schedule.betas=[0.9]", r"schedule\.betas\.1 is missing"),
        ("schedule.betas=[0.9, 1.0]", r"schedule\.betas are"),
        ("data.scaled_share=2", r"data\.scaled_share is 2; it must be less than or equal to 1"),
        ("loss.weights.l1=-1", r"loss\.weights\.l1 is -1; it must be greater than or equal to 0"),
        ("loss.weights.lpips=1", r"loss\.lpips"),
        ("schedule.learning_rate=0", r"schedule\.learning_rate is 0; it must be greater than 0"),
        ("schedule.seed=-1", r"schedule\.seed is -1"),
        ("data.max_scale=nan", r"data\.max_scale is"),
        ("model.options=5", r"model\.options is 5"),
        ("run.compile=1", r"run\.compile is 1; it must be a valid boolean"),
        ("schedule.seed=2024-01-01", r"schedule\.seed is '2024-01-01'"),
        ("data=5", "not of the form"),
        ("schedule.steps", "not of the form"),
        ("model.family.x=1", "is a value, not a table"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("latent-vae", [override])


def test_two_budgets_or_none_are_refused() -> None:
    for budget in ({"steps": 0, "minutes": 0}, {"steps": 5, "minutes": 5}):
        with pytest.raises(ConfigError, match="one of them must be 0"):
            config_from({"schedule": budget})


def test_a_recipe_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[schedule]\nsteps = 3\n")
    assert load_config(str(path)).schedule.steps == 3
    path.write_text("[schedule\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(str(path))
    with pytest.raises(ConfigError, match="no recipe 'nonsense': it is neither a bundled one"):
        load_config("nonsense")
