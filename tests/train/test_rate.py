# SPDX-License-Identifier: Apache-2.0
"""Training for the rate: the objective, its configuration, and whole runs."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from latentwire_codec.load import load_autoencoder
from latentwire_train.config import ConfigError, TrainingConfig
from latentwire_train.loop import train
from latentwire_train.loss.rate import RateObjective
from latentwire_train.networks import build_network
from tests.train.conftest import Watcher

Tiny = Callable[..., TrainingConfig]
LOSS = {"weights": {"mse": 1.0, "rate": 0.1155}, "steps": [0.2, 1.8]}


def rate_config(tiny: Tiny, **tables: object) -> TrainingConfig:
    model = {"family": "latent-vae", "kind": "ae"}
    return tiny(**({"model": model, "loss": LOSS} | tables))


def objective_of(config: TrainingConfig) -> RateObjective:
    torch.manual_seed(0)
    network = build_network(config.model, config.data.size)
    return RateObjective(network, config.loss, network.latent_shape(config.data.size))


def images(count: int) -> torch.Tensor:
    ramp = torch.linspace(-1, 1, 32)
    return torch.stack([ramp[:, None] * ramp * (number + 1) / count for number in range(count)])[:, None].repeat(
        1, 3, 1, 1
    )


def test_a_batch_has_a_step_in_each_part_of_the_range(tiny: Tiny) -> None:
    objective = objective_of(rate_config(tiny))
    drawn = []
    objective._coder.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[1]))
    for seed in range(20):
        objective(images(8), torch.Generator().manual_seed(seed), 0)
    for steps in drawn:
        places = torch.log(steps.sort().values / 0.2) / math.log(1.8 / 0.2)
        assert ((places * 8).floor() == torch.arange(8)).all()
    assert len({tuple(steps.tolist()) for steps in drawn}) == 20


def test_the_loss_reaches_every_weight_that_codes_and_none_of_the_log_variance(tiny: Tiny) -> None:
    objective = objective_of(rate_config(tiny))
    outcome = objective(images(4), torch.Generator().manual_seed(0), 0)
    outcome.total.backward()
    assert {"mse", "bpp", "psnr"} <= outcome.parts.keys()
    last = objective.encoder.get_parameter("residual.conv_out.weight").grad
    assert last is not None
    assert last[:4].any()
    assert not last[4:].any()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_ms_ssim_takes_its_share_of_the_loss(tiny: Tiny) -> None:
    config = rate_config(tiny, loss=LOSS | {"weights": {"mse": 1.0, "rate": 0.1155, "ms_ssim": 0.5}})
    plain, mixed = objective_of(rate_config(tiny)), objective_of(config)
    one, other = (each(images(4), torch.Generator().manual_seed(0), 0) for each in (plain, mixed))
    assert other.total.item() == pytest.approx(1.5 * one.total.item(), rel=1e-4)
    assert 0 < other.parts["ms_ssim"] < 1


def test_a_run_lowers_the_loss_and_leaves_a_model_whose_posterior_tells_the_noise(
    tiny: Tiny, photos: Path, tmp_path: Path, watcher: Watcher
) -> None:
    schedule = {"steps": 60, "batch_size": 4, "optimizer": "muon", "learning_rate": 2e-3, "ema_decay": 0.8}
    config = rate_config(tiny, schedule=schedule, run={"evaluate_every": 30})
    train(config, photos, tmp_path / "run", watcher)
    first, second = (figures for _, figures in watcher.evaluations)
    assert second["held_out/loss"] < first["held_out/loss"]
    assert second["held_out/bpp_fine"] > second["held_out/bpp_middle"] > second["held_out/bpp_coarse"] > 0
    assert second["held_out/psnr_fine"] > second["held_out/psnr_coarse"]
    posterior = load_autoencoder(str(tmp_path / "run" / "best"), device="cpu").encode(images(1))
    assert posterior.logvar is not None
    torch.testing.assert_close(posterior.logvar, torch.full_like(posterior.logvar, math.log(0.2 * 1.8 / 12)))
    card = (tmp_path / "run" / "best" / "README.md").read_text()
    assert "0.1155 rate" in card
    assert "bits per pixel" in card


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"loss": LOSS | {"weights": {"rate": 0.1}}}, "mse is; bits are weighed"),
        ({"loss": LOSS | {"weights": {"mse": 1.0, "rate": 0.1, "l1": 2.0}}}, r"loss\.weights\.l1 is 2"),
        ({"loss": LOSS | {"quantization_step": 0.5}}, r"quantization_step is 0\.5"),
        ({"loss": LOSS | {"steps": [2.0, 0.1]}}, "the finest, above 0, comes first"),
        ({"model": {"family": "latent-vae", "kind": "vae"}}, "model.kind is vae"),
    ],
)
def test_values_that_contradict_the_rate_are_refused_by_name(
    tables: dict[str, dict[str, object]], message: str, tiny: Tiny
) -> None:
    with pytest.raises(ConfigError, match=message):
        rate_config(tiny, **json.loads(json.dumps(tables)))
