# SPDX-License-Identifier: Apache-2.0
"""The measures of docs/vae.md, where their values are known beforehand."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.latent_space import divergence
from benchmarks.latent_space.datasets import DEFAULT_MINUTES, Plan
from benchmarks.latent_space.measures import Gaussian, components, distance, frechet, nearest, unevenness
from benchmarks.latent_space.spatial import quantize
from latentwire_core.latents import Latents
from latentwire_lab.paths import along_line

Array = npt.NDArray[np.float64]

unhurried = settings(deadline=None)


def whitened(count: int, dimensions: int, seed: int) -> Array:
    """Return points whose mean is exactly 0 and whose covariance is exactly the identity."""
    points = np.random.default_rng(seed).standard_normal((count, dimensions))
    points -= points.mean(axis=0)
    root = np.linalg.cholesky(np.cov(points, rowvar=False).reshape(dimensions, dimensions))
    return np.asarray(np.linalg.solve(root, points.T).T)


@unhurried
@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_the_line_of_a_linear_decoder_is_exactly_even(dimensions: int, steps: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    decoder = draws.standard_normal((dimensions, 48))
    start, end = (Latents(draws.standard_normal((1, dimensions, 1, 1)).astype(np.float32)) for _ in range(2))
    points = along_line(start, end, steps).values.reshape(steps, -1)
    frames = (points @ decoder).reshape(1, steps, 4, 4, 3)
    assert unevenness(frames) == pytest.approx([1.0], rel=1e-3)  # latents are float32


def test_a_path_that_jumps_once_is_as_uneven_as_can_be() -> None:
    jumping = np.zeros((5, 2, 2, 3))
    jumping[3:] = 200
    assert unevenness(jumping[np.newaxis]) == pytest.approx([4.0])


def test_a_path_that_does_not_move_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="all 3 frames of a path are equal"):
        unevenness(np.stack([np.zeros((3, 4)), np.arange(12.0).reshape(3, 4)]))


def test_the_distance_of_images_is_in_grey_levels() -> None:
    black, grey = np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 7, np.uint8)
    half = grey.copy()
    half[0, 0] = 0
    assert distance(black, grey) == pytest.approx([7.0])
    assert distance(grey, black) == pytest.approx([7.0])  # bytes do not wrap around
    assert distance(black, half) == pytest.approx([7.0 / 2**0.5])


@unhurried
@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_the_nearest_image_is_the_one_that_a_search_finds(count: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    data = draws.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    images = draws.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    expected = [min(float(distance(image[None], known[None])[0]) for known in data) for image in images]
    assert nearest(images, data) == pytest.approx(expected)
    assert nearest(data, data) == pytest.approx([0.0] * count)


@unhurried
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_fitted_normal_distribution_has_mean_and_covariance_of_the_points(dimensions: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    mixing, shift = draws.standard_normal((dimensions, dimensions)), draws.standard_normal(dimensions)
    fitted = Gaussian.fit(whitened(50, dimensions, seed) @ mixing.T + shift)
    assert fitted.mean == pytest.approx(shift, abs=1e-9)
    assert fitted.covariance == pytest.approx(mixing @ mixing.T, abs=1e-9)


def test_steps_have_the_spread_of_the_latents_whatever_their_scale() -> None:
    points = whitened(100, 3, 0)
    small, large = (Gaussian.fit(points * scale + 5).steps(2000, seed=1) for scale in (0.01, 100.0))
    assert small.std(axis=0) == pytest.approx(np.full(3, 0.01), rel=0.1)
    assert large.std(axis=0) == pytest.approx(np.full(3, 100.0), rel=0.1)
    assert np.abs(large.mean(axis=0)).max() < 10


@unhurried
@given(st.integers(1, 5), st.floats(0.1, 10), st.floats(-10, 10), st.integers(0, 2**32 - 1))
def test_the_frechet_distance_is_known_for_scaled_and_shifted_points(
    dimensions: int, scale: float, shift: float, seed: int
) -> None:
    points, others = whitened(40, dimensions, seed), scale * whitened(60, dimensions, seed + 1) + shift
    expected = dimensions * (shift**2 + (scale - 1) ** 2)
    assert frechet(points, others) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert frechet(others, points) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert frechet(points, points) == pytest.approx(0, abs=1e-6)


def test_principal_components_keep_the_distances_of_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    features = components(images, 64)(images)
    assert features.shape == (6, 5)
    between = np.linalg.norm(features[0] - features[1])
    assert between == pytest.approx(float(distance(images[:1], images[1:2])[0]))


@pytest.mark.parametrize("reverse", [True, False])
def test_the_closest_to_a_normal_distribution_is_itself(reverse: bool) -> None:
    fit = divergence.closest(divergence.normal(1.0, float(divergence.STDS[30])), reverse=reverse)
    assert fit.mean == pytest.approx(1.0)
    assert fit.std == pytest.approx(float(divergence.STDS[30]))
    assert fit.divergence == pytest.approx(0, abs=1e-9)


def test_the_two_directions_of_kl_choose_a_mode_or_cover_both() -> None:
    density = divergence.two_modes()
    covering, choosing = (divergence.closest(density, reverse=reverse) for reverse in (False, True))
    # Maximum likelihood: mean and variance are those of the density, 0.2 * 1.6 and 0.5^2 + 0.24 * 3.2^2.
    assert covering.mean == pytest.approx(0.32, abs=0.05)
    assert covering.std == pytest.approx(1.645, rel=0.03)
    # The larger mode alone, which costs the logarithm of its share.
    assert choosing.mean == pytest.approx(1.6, abs=0.05)
    assert choosing.std == pytest.approx(0.5, rel=0.05)
    assert choosing.divergence == pytest.approx(-np.log(0.6), abs=0.01)


def test_kl_of_two_normal_distributions_is_the_closed_form() -> None:
    mean, std = 0.7, 0.4
    expected = 0.5 * (mean**2 + std**2 - 1) - np.log(std)
    assert divergence.kl(divergence.normal(mean, std), divergence.normal(0, 1)) == pytest.approx(expected, rel=1e-6)


@unhurried
@given(st.floats(0.05, 4), st.integers(0, 2**32 - 1))
def test_rounded_latents_are_at_most_half_a_step_away(step: float, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((1, 3, 4, 5)).astype(np.float32)
    latents = Latents(values, scaled=True)
    rounded, multiples = quantize(latents, step)
    assert np.abs(rounded.values - values).max() <= step / 2 + 1e-5
    assert rounded.values == pytest.approx(multiples * step, abs=1e-5)
    assert rounded.scaled
    again, same = quantize(rounded, step)
    assert np.array_equal(same, multiples)
    assert np.array_equal(again.values, rounded.values)


def test_without_a_step_latents_stay_as_they_are() -> None:
    latents = Latents(np.ones((1, 2, 3, 3), np.float32), scaled=True)
    assert quantize(latents, 0.0)[0] is latents


def test_minutes_become_steps_of_training() -> None:
    plan = Plan(face_steps=100, digit_steps=40)
    assert plan.lasting(DEFAULT_MINUTES) == plan
    assert plan.lasting(DEFAULT_MINUTES / 2) == replace(plan, face_steps=50, digit_steps=20)
    assert plan.lasting(1e-9).face_steps == 1
    with pytest.raises(ValueError, match="-1 minutes; it must be above 0"):
        plan.lasting(-1)
