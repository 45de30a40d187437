# SPDX-License-Identifier: Apache-2.0
"""The coder that training descends along: against the `.lat` coder itself, and against finite differences."""

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from torch import Tensor

from latentwire_codec.lat.quantizer import Steps, dequantize, quantize, round_to
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import common_tables
from latentwire_codec.lat.traversal import shape_of
from latentwire_codec.load import load_autoencoder
from latentwire_train.loss.coding import DifferentiableCoder

STEPS = (0.25, 0.5, 1.0, 2.0)


@cache
def latents() -> Tensor:
    """Latents of three photographs in units of the bundled model, float32 (3,4,32,32)."""
    model = load_autoencoder("f8c4", device="cpu", dtype="float32")
    crops = [data.astronaut()[:256, :256], data.coffee()[100:356, 100:356], data.chelsea()[:256, 100:356]]
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 127.5 - 1
    assert model.spec.latent_units is not None
    return model.encode(images).mode() / torch.tensor(model.spec.latent_units)[:, None, None]


def really_coded(one: npt.NDArray[np.float32], step: float) -> tuple[int, npt.NDArray[np.floating]]:
    """The bits that the coder's integers take, and the latents that it gives back."""
    steps = Steps.nearest(np.full(len(one), step))
    tables = common_tables()
    model = tables.context_model(SideInformation.fit(round_to(one, steps)))
    chosen, offset = quantize(one, steps, model)
    bits = 8 * sum(len(part) for part in vars(chosen.coded).values())
    return bits, dequantize(chosen.integers, chosen.means, steps, offset)


@pytest.mark.parametrize("step", STEPS)
def test_bits_of_real_latents_are_those_of_the_coder_within_5_percent(step: float) -> None:
    coding = DifferentiableCoder(shape_of(latents()[0].numpy()))(latents(), torch.full((3,), step))
    real = [really_coded(each.numpy(), step) for each in latents()]
    assert coding.bits.sum().item() == pytest.approx(sum(bits for bits, _ in real), rel=0.05)
    error = (coding.latents - latents()).square().mean().item()
    real_error = np.mean(
        [np.square(given - each.numpy()).mean() for (_, given), each in zip(real, latents(), strict=True)]
    )
    assert error == pytest.approx(real_error, rel=0.05)


@pytest.mark.parametrize("step", STEPS)
def test_slopes_in_the_gain_are_finite_differences_of_hard_integers(step: float) -> None:
    # Hard integers are steps: the mean of the slopes over a range of gains is compared with the rise over the range.
    measured = DifferentiableCoder(shape_of(latents()[0].numpy()))
    rises, slopes = [], []
    for gain in np.linspace(-0.1, 0.1, 21):
        log_gain = torch.tensor(gain, dtype=torch.float32, requires_grad=True)
        coding = measured(latents() * log_gain.exp(), torch.full((3,), step))
        distortion = (coding.latents * (-log_gain).exp() - latents()).square().sum() / step**2
        figures = (coding.bits.sum(), distortion)
        rises.append([figure.item() for figure in figures])
        slopes.append([torch.autograd.grad(figure, log_gain, retain_graph=True)[0].item() for figure in figures])
    rise = np.subtract(rises[-1], rises[0])
    # Wide in bits: the slopes through the scales are left out.
    assert 0.2 * np.mean(slopes, axis=0) == pytest.approx(rise, rel=0.3)


def test_the_gain_of_a_channel_of_little_use_is_nearly_at_its_balance() -> None:
    # In truth the pulls of distortion and rate cancel. The straight-through estimator pulls 3 times as hard upwards.
    torch.manual_seed(0)
    weak = torch.distributions.Laplace(0.0, 0.15).sample((1, 1, 64, 64))
    log_gain = torch.zeros((), requires_grad=True)
    coding = DifferentiableCoder((1, 64, 64))(weak * log_gain.exp(), torch.ones(1))
    distortion = (coding.latents * (-log_gain).exp() - weak).square().mean()
    rate = 0.1155 * coding.bits.sum() / weak.numel()
    up, down = (torch.autograd.grad(cost, log_gain, retain_graph=True)[0].item() for cost in (distortion, rate))
    assert up < 0 < down
    assert abs(up + down) < 0.4 * down


def test_zeros_cost_next_to_nothing_and_stay_zeros() -> None:
    coding = DifferentiableCoder((4, 16, 16))(0.1 * torch.randn(2, 4, 16, 16), torch.ones(2))
    assert coding.bits.max() < 0.02 * 4 * 16 * 16
    assert not coding.latents.any()


def test_each_image_is_coded_alone() -> None:
    measured = DifferentiableCoder(shape_of(latents()[0].numpy()))
    together = measured(latents(), torch.tensor([0.25, 0.5, 1.0]))
    for index, step in enumerate((0.25, 0.5, 1.0)):
        alone = measured(latents()[index : index + 1], torch.tensor([step]))
        torch.testing.assert_close(alone.latents[0], together.latents[index])
        torch.testing.assert_close(alone.bits[0], together.bits[index])


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)),
    spread=st.sampled_from([0.0, 0.01, 1.0, 100.0, 1e5]),
    seed=st.integers(0, 99),
)
def test_latents_of_any_shape_and_spread_have_finite_bits_and_gradients(
    shape: tuple[int, int, int], spread: float, seed: int
) -> None:
    values = (spread * torch.randn((2, *shape), generator=torch.Generator().manual_seed(seed))).requires_grad_()
    coding = DifferentiableCoder(shape)(values, torch.tensor([0.5, 1.0]))
    assert coding.latents.shape == values.shape
    assert (coding.bits >= 0).all()
    assert coding.bits.isfinite().all()
    (gradient,) = torch.autograd.grad(coding.bits.sum() + coding.latents.square().sum(), values)
    assert gradient.isfinite().all()
    steps = torch.tensor([0.5, 1.0])[:, None, None, None]
    assert ((coding.latents - values).abs() <= 2 * steps + 1e-5 * spread).all()
