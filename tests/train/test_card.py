# SPDX-License-Identifier: Apache-2.0
"""The model card: what a run is and was measured to be, readable by people and by model hubs."""

import os
import re
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard

from latentwire_train.config import (
    Architecture,
    AutoencoderKind,
    DataConfig,
    FramingName,
    LossConfig,
    LossWeights,
    ModelConfig,
    ScheduleConfig,
    TrainingConfig,
)
from latentwire_train.record.card import CardFacts, model_card
from latentwire_train.record.export import LatentMoments


def facts(config: TrainingConfig | None = None, **changes: Any) -> CardFacts:
    """Facts of a spatial VAE."""
    basic = CardFacts(
        config=config or TrainingConfig(),
        steps=9_500,
        minutes=48.25,
        images=2_139,
        held_out=43,
        skipped=7,
        data_name="photos",
        data_digest="ab" * 32,
        parameters=7_083_480,
        latent_shape=(4, 16, 16),
        latents=LatentMoments((0.1, -0.2, 0.3, 0.0), (1.0, 0.9, 1.1, 0.5), 0.987654321),
        figures={"held_out/psnr": 26.954, "held_out/kl": 1512.3, "held_out/sharpness": 0.123456},
        versions={"torch": "2.13.0", "latentwire": "0.1.0"},
    )
    return replace(basic, **changes)


def family(name: Architecture, **settings: Any) -> TrainingConfig:
    return TrainingConfig(model=ModelConfig(family=name, **settings))


def head(card: str) -> dict[str, Any]:
    """The head, as a model hub reads it."""
    data: dict[str, Any] = ModelCard(card).data.to_dict()
    return data


def table(card: str) -> dict[str, str]:
    """Every row of every table: first cell -> the others."""
    rows = re.findall(r"^\| ([^|]*) \| (.*) \|$", card, re.MULTILINE)
    return {name.strip(): rest for name, rest in rows}


def test_the_card_states_what_was_measured_with_units() -> None:
    rows = table(model_card(facts()))
    assert rows["PSNR, dB"] == "26.95"
    assert rows["KL divergence to N(0, I), nats per image"] == "1,512.3"
    assert rows["sharpness"] == "0.1235"


def test_the_card_says_how_the_weights_came_to_be() -> None:
    config = TrainingConfig(
        data=DataConfig(size=128, mirror_share=0.5),
        loss=LossConfig(weights=LossWeights(l1=1.0, mse=5.0, kl=0.024), quantization_step=0.25, kl_warmup_steps=200),
        schedule=ScheduleConfig(steps=10_000, batch_size=16, learning_rate=6e-4, seed=42, ema_decay=0.998),
    )
    card = model_card(facts(config))
    rows = table(card)
    assert rows["data"] == "`photos`: 2,139 images, 43 more held out"
    assert rows["data digest"].startswith(f"`{'ab' * 32}`")
    assert rows["skipped files"] == "7"
    assert rows["budget"] == "10,000 steps; these weights: 9,500 steps, 48.2 minutes"
    assert rows["batch"] == "16 samples"
    assert rows["loss"] == (
        "1 l1 + 5 mse + 0.024 kl; kl in nats per value of the image, its weight rising over 200 steps"
    )
    assert rows["quantization"] == "0.25 standard deviations wide"
    assert rows["seed"] == "42"
    assert rows["versions"] == "torch 2.13.0, latentwire 0.1.0"
    assert "learning rate 0.0006" in rows["optimizer"]
    assert "EMA 0.998" in rows["optimizer"]
    assert "7,083,480 parameters" in card


def test_the_card_gives_scaling_and_moments_of_each_channel() -> None:
    card = model_card(facts())
    assert "0.987654" in card
    assert "| 1 | -0.2000 | 0.9000 |" in card


def test_a_long_vector_is_summed_up() -> None:
    numbers = tuple(index / 100 for index in range(64))
    vector = facts(family(Architecture.VECTOR), latent_shape=(64, 1, 1), latents=LatentMoments(numbers, numbers, 1.0))
    card = model_card(vector)
    assert "| mean | 0.0000 | 0.6300 |" in card
    assert "a latent vector of 64 numbers" in card
    assert len(card.splitlines()) < 80


def test_the_spatial_shape_is_that_of_a_training_image() -> None:
    assert "f = 8 and C = 4, so 128x128x3 becomes 16x16x4" in model_card(facts())


@pytest.mark.parametrize(
    ("name", "library"),
    [
        (Architecture.AUTOENCODER_KL, "diffusers"),
        (Architecture.LATENT_VAE, "latentwire"),
        (Architecture.VECTOR, "latentwire"),
    ],
)
def test_only_what_an_unmodified_diffusers_loads_is_called_diffusers(name: Architecture, library: str) -> None:
    card = model_card(facts(family(name), latent_shape=(4, 1, 1) if name is Architecture.VECTOR else (4, 16, 16)))
    assert head(card)["library_name"] == library
    assert ("AutoencoderKL.from_pretrained" in card) == (library == "diffusers")
    assert "latentwire serve --model PATH" in card


def test_the_licence_is_left_to_the_user() -> None:
    card = model_card(facts())
    assert "license" not in head(card)
    assert "# license: add yours" in card


def test_the_limits_are_those_of_the_kind_and_the_loss() -> None:
    spatial = model_card(facts())
    assert "decoding N(0, I) gives texture" in spatial
    assert "texture comes out soft" in spatial
    plain = model_card(facts(family(Architecture.LATENT_VAE, kind=AutoencoderKind.AE)))
    assert "A plain autoencoder" in plain
    assert table(plain)["loss"] == "1 l1"
    assert "decoding N(0, I) gives texture" not in plain
    sharp = LossConfig(weights=LossWeights(l1=1.0, adversarial=0.1))
    assert "comes out soft" not in model_card(facts(TrainingConfig(loss=sharp)))


def test_whole_images_are_not_called_crops() -> None:
    card = model_card(
        facts(TrainingConfig(data=DataConfig(framing=FramingName.COVER, size=64)), latent_shape=(4, 8, 8))
    )
    assert table(card)["samples"].startswith("whole images, scaled and cut to 64x64 px")
    assert "scaled and cut to 64x64 px" in card.partition("## Measured")[2]


@pytest.mark.parametrize("name", ["a|b", "`x`\n# Title", os.fsdecode(b"\xff"), "<script>"])
def test_a_name_from_outside_is_no_markup_and_can_be_written(name: str) -> None:
    card = model_card(facts(data_name=name))
    assert card.encode()
    assert "\n# " not in card.partition("---\n\n# ")[2]
    row = next(line for line in card.splitlines() if line.startswith("| data |"))
    assert row.count("|") == 3
    assert row.count("`") == 2
