# SPDX-License-Identifier: Apache-2.0
"""Statistics of posteriors, against scipy, torch and numpy; and the verdict on their closeness to N(0, I)."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from latentwire_client import Latents
from latentwire_core.noise import MAX_SEED
from latentwire_lab import posterior_statistics
from latentwire_lab.statistics import POSITIONS, LatentStatistics

Array = npt.NDArray[np.float64]


def posterior(mean: npt.ArrayLike, variance: npt.ArrayLike | None = None) -> Latents:
    """Moments of one image or more from (B,C), (C,h,w) or (B,C,h,w) and variances that fit."""
    values = np.asarray(mean, np.float32)
    values = values[:, :, np.newaxis, np.newaxis] if values.ndim == 2 else values.reshape(-1, *values.shape[-3:])
    if variance is None:
        return Latents(values, kind="moments")  # type: ignore[arg-type]
    logvar = np.log(np.asarray(variance, np.float32))
    logvar = logvar[..., np.newaxis, np.newaxis] if logvar.ndim <= 2 else logvar
    return Latents(values, np.broadcast_to(logvar, values.shape).astype(np.float32), "moments")  # type: ignore[arg-type]


def gaussian(images: int, dimensions: int, variance: float = 0.1, seed: int = 0) -> Latents:
    """Posteriors whose aggregate is N(0, I)."""
    means = np.random.default_rng(seed).normal(size=(images, dimensions)) * (1 - variance) ** 0.5
    return posterior(means, np.full(dimensions, variance))


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(1, 5), st.integers(0, 2**32), st.floats(0.1, 3), st.floats(-5, 5))
def test_the_statistics_agree_with_scipy_and_numpy(
    images: int, dimensions: int, seed: int, spread: float, shift: float
) -> None:
    means = np.random.default_rng(seed).normal(size=(images, dimensions)) * spread + shift
    found = posterior_statistics([posterior(means)])
    samples = means.astype(np.float32).astype(np.float64).T
    np.testing.assert_array_equal(found.samples, samples.astype(np.float32))
    np.testing.assert_allclose(found.mean, samples.mean(axis=1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.std, samples.std(axis=1, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(found.mean_variance, samples.var(axis=1, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(found.ks, [kstest(row, "norm").statistic for row in samples], atol=1e-6)
    np.testing.assert_allclose(found.correlation, np.atleast_2d(np.corrcoef(samples)), atol=1e-6)
    assert (found.images, found.observations) == (images, images)
    assert (found.kl, found.total_kl, found.neighbour_correlation) == (None, None, None)


def test_the_divergence_is_torchs_summed_over_positions_and_averaged_over_images() -> None:
    generator = np.random.default_rng(1)
    mean, logvar = (generator.normal(size=(3, 2, 4, 5)).astype(np.float32) for _ in range(2))
    found = posterior_statistics([Latents(mean, logvar, "moments")])  # type: ignore[arg-type]
    posteriors = torch.distributions.Normal(torch.from_numpy(mean), torch.from_numpy(np.exp(logvar / 2)))
    expected = torch.distributions.kl_divergence(posteriors, torch.distributions.Normal(0.0, 1.0))
    assert found.kl is not None
    np.testing.assert_allclose(found.kl, expected.sum(dim=(2, 3)).mean(dim=0).numpy(), rtol=1e-5)
    assert found.total_kl == pytest.approx(float(expected.sum(dim=(1, 2, 3)).mean()), rel=1e-5)


def test_samples_are_those_that_the_latents_themselves_draw() -> None:
    moments = gaussian(3, 5)
    drawn = moments.sample([MAX_SEED, 0, 1]).values[:, :, 0, 0].T
    np.testing.assert_array_equal(posterior_statistics([moments], seed=MAX_SEED).samples, drawn)


def test_posteriors_may_come_one_by_one() -> None:
    whole = gaussian(20, 3)

    def one_by_one() -> Iterator[Latents]:
        yield from whole.split()

    one, other = posterior_statistics([whole]), posterior_statistics(one_by_one())
    np.testing.assert_array_equal(one.samples, other.samples)
    np.testing.assert_array_equal(one.kl, other.kl)


def test_a_collapsed_dimension_is_inactive_though_its_samples_are_normal() -> None:
    means = np.zeros((400, 2))
    means[:, 0] = np.random.default_rng(0).normal(size=400) * 0.9
    found = posterior_statistics([posterior(means, [0.19, 1.0])])
    assert found.active.tolist() == [True, False]
    assert found.ks.max() < 0.1
    assert found.kl is not None
    assert found.kl[1] == pytest.approx(0, abs=1e-6)


def test_correlated_and_constant_dimensions() -> None:
    first = np.random.default_rng(0).normal(size=200)
    found = posterior_statistics([posterior(np.stack([first, -first, np.full(200, 0.1)], axis=1))])
    np.testing.assert_allclose(found.correlation, [[1, -1, 0], [-1, 1, 0], [0, 0, 1]], atol=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# Spatial latents
# ---------------------------------------------------------------------------------------------------------------------


def test_the_positions_of_spatial_latents_are_pooled_over_images_of_several_sizes() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=(2, 4, 6)), generator.normal(size=(2, 3, 3))
    found = posterior_statistics([posterior(one), posterior(other)])
    assert (found.images, found.observations) == (2, 24 + 9)
    pooled = np.concatenate([one.reshape(2, -1), other.reshape(2, -1)], axis=1)
    np.testing.assert_allclose(found.mean, pooled.mean(axis=1), rtol=1e-5)


def test_neighbours_are_correlated_as_numpy_says() -> None:
    images = np.random.default_rng(0).normal(size=(3, 2, 5, 4)).cumsum(axis=2)
    found = posterior_statistics([posterior(images)])
    values = images.astype(np.float32).astype(np.float64)
    for channel in range(2):
        each = values[:, channel]
        a = np.concatenate([each[:, :-1].ravel(), each[:, :, :-1].ravel()])
        b = np.concatenate([each[:, 1:].ravel(), each[:, :, 1:].ravel()])
        assert found.neighbour_correlation is not None
        assert found.neighbour_correlation[channel] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6)


def test_constant_latents_have_no_correlated_neighbours() -> None:
    found = posterior_statistics([posterior(np.full((2, 1, 8, 8), 0.1))])
    np.testing.assert_array_equal(found.neighbour_correlation, [0.0])


def test_of_a_large_image_some_positions_are_drawn_the_same_every_time() -> None:
    large = posterior(np.random.default_rng(0).normal(size=(1, 2, 80, 80)))
    one, other = posterior_statistics([large], seed=3), posterior_statistics([large], seed=3)
    assert one.observations == POSITIONS
    np.testing.assert_array_equal(one.samples, other.samples)
    assert set(one.samples[0]) <= set(large.values[0, 0].ravel())
    assert one.total_kl is None


# ---------------------------------------------------------------------------------------------------------------------
# The verdict
# ---------------------------------------------------------------------------------------------------------------------


def changed(means: Array) -> LatentStatistics:
    return posterior_statistics([posterior(means)])


def normal(images: int, dimensions: int = 8) -> Array:
    return np.random.default_rng(5).normal(size=(images, dimensions))


def test_a_standard_normal_aggregate_is_close() -> None:
    found = posterior_statistics([gaussian(2000, 16)])
    assert found.is_close is True
    assert found.verdict.startswith("close to N(0, I): |mean| ")
    assert "KS distance" in found.verdict


@pytest.mark.parametrize(
    ("measure", "where"),
    [("|mean|", "(dimension 3)"), ("|std - 1|", "(dimension 3)"), ("KS distance", "(dimension 3)"),
     ("|correlation| of two", "(dimensions 2 and 3)")],
)  # fmt: skip
def test_each_departure_is_found_and_named_with_its_dimension(measure: str, where: str) -> None:
    means = normal(2000)
    if measure == "|mean|":
        means[:, 3] += 0.5
    elif measure == "|std - 1|":
        means[:, 3] *= 1.5
    elif measure == "KS distance":
        means[:, 3] = np.sign(means[:, 3])
    else:
        means[:, 3] = 0.8 * means[:, 2] + 0.6 * means[:, 3]
    found = changed(means)
    assert found.is_close is False
    (departure,) = [each for each in found.departures() if each.measure == measure]
    assert departure.value > departure.limit + departure.noise
    assert found.verdict.startswith("not close to N(0, I): ")
    assert f"{measure} {departure.value:.2f} > {departure.limit:g} {where}" in found.verdict


def test_spatial_latents_are_judged_by_their_neighbours_too() -> None:
    rough = np.random.default_rng(0).normal(size=(20, 1, 32, 32))
    smooth = (rough + np.roll(rough, 1, axis=2) + np.roll(rough, 1, axis=3)) / 3**0.5
    assert posterior_statistics([posterior(rough)]).is_close is True
    found = posterior_statistics([posterior(smooth)])
    assert found.is_close is False
    assert "|correlation| of neighbours" in found.verdict


def test_few_images_do_not_tell() -> None:
    found = posterior_statistics([gaussian(20, 16)])
    assert found.is_close is None
    assert found.verdict.startswith("20 images are too few to tell whether it is close to N(0, I): ")


def test_few_images_do_tell_where_the_departure_is_large() -> None:
    assert changed(normal(20) * 10).is_close is False


def test_a_standard_normal_aggregate_is_hardly_ever_called_otherwise() -> None:
    verdicts = [posterior_statistics([gaussian(100, 64, seed=seed)]).is_close for seed in range(30)]
    assert False not in verdicts


# ---------------------------------------------------------------------------------------------------------------------
# What is refused
# ---------------------------------------------------------------------------------------------------------------------


def test_what_has_no_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="0 observations of each dimension; 2 are needed"):
        posterior_statistics([])
    with pytest.raises(ValueError, match="1 observations"):
        posterior_statistics([gaussian(1, 3)])
    with pytest.raises(ValueError, match="are a mode; encode with kind='moments'"):
        posterior_statistics([gaussian(2, 3).mode()])
    with pytest.raises(ValueError, match="have 4 channels, those before 3"):
        posterior_statistics([gaussian(2, 3), gaussian(2, 4)])
