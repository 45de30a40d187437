# SPDX-License-Identifier: Apache-2.0
"""Seeded noise is one algorithm for ever; samples are the mean plus sigma times that noise."""

import math
from dataclasses import FrozenInstanceError
from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire_codec.runtime.posterior import Posterior
from latentwire_core.errors import TensorError
from latentwire_core.noise import MAX_SEED, seeded_noise

unhurried = settings(deadline=None)
WORD = 2**64 - 1
shapes = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))
seeds = st.integers(0, MAX_SEED)

GOLDEN = {
    (0, (1, 1, 1)): [0.4075264],
    (0, (4, 2, 2)): [0.4004281, 0.0161308, -0.5191518, -1.9764549],
    (1, (4, 2, 2)): [-2.0093257, 0.8354826, 1.5432141, -0.3929051],
    (MAX_SEED, (4, 2, 2)): [-1.5310644, -0.2271468, -1.6510643, 1.8644462],
    (7, (4, 64, 64)): [0.4354515, 0.9068016, -0.9816738, 0.2460283],
    (7, (3, 1, 1)): [-0.7668980, 0.2638216, -1.0493101],
}


def philox(counter: int, key: tuple[int, int]) -> list[int]:
    """Philox4x64-10 as its paper states it."""
    c, k = [counter, 0, 0, 0], list(key)
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [b >> 64 ^ c[1] ^ k[0], b & WORD, a >> 64 ^ c[3] ^ k[1], a & WORD]
        k = [(k[0] + 0x9E3779B97F4A7C15) & WORD, (k[1] + 0xBB67AE8584CAA73B) & WORD]
    return c


def noise_by_the_book(seed: int, shape: tuple[int, int, int]) -> list[float]:
    """The documented algorithm without numpy."""
    channels, height, width = shape
    size = channels * height * width
    key = (seed, (channels << 40) + (height << 20) + width)
    numbers: list[float] = []
    for counter in count(1):
        words = philox(counter, key)
        for first, second in (words[:2], words[2:]):
            radius = math.sqrt(-2 * math.log(((first >> 11) + 1) * 2.0**-53))
            angle = 2 * math.pi * (second >> 11) * 2.0**-53
            numbers += [radius * math.cos(angle), radius * math.sin(angle)]
        if len(numbers) >= size:
            return numbers[:size]
    raise AssertionError


@pytest.mark.parametrize(("seed", "shape"), GOLDEN)
def test_the_noise_is_what_it_always_was(seed: int, shape: tuple[int, int, int]) -> None:
    golden = GOLDEN[seed, shape]
    noise = seeded_noise(seed, shape)
    assert noise.dtype == np.float32
    assert noise.shape == shape
    np.testing.assert_allclose(noise.flatten()[: len(golden)], golden, rtol=0, atol=1e-6)


@unhurried
@given(seed=seeds, shape=shapes)
def test_the_noise_is_the_documented_algorithm(seed: int, shape: tuple[int, int, int]) -> None:
    expected = noise_by_the_book(seed, shape)
    np.testing.assert_allclose(seeded_noise(seed, shape).flatten(), expected, rtol=0, atol=1e-6)


@unhurried
@given(seed=seeds, shape=shapes)
def test_the_noise_is_the_same_each_time(seed: int, shape: tuple[int, int, int]) -> None:
    np.random.default_rng().normal()
    np.testing.assert_array_equal(seeded_noise(seed, shape), seeded_noise(seed, shape))


def test_the_noise_depends_on_every_bit_of_the_seed() -> None:
    noises = [seeded_noise(seed, (4, 2, 2)) for seed in [0, *(1 << bit for bit in range(64))]]
    assert len({noise.tobytes() for noise in noises}) == 65


@pytest.mark.parametrize("other", [(4, 6, 2), (4, 2, 6), (2, 4, 6), (12, 2, 2), (4, 3, 4)])
def test_the_noise_depends_on_the_shape(other: tuple[int, int, int]) -> None:
    here, there = seeded_noise(3, (4, 4, 3)), seeded_noise(3, other)
    assert here.flatten()[:4].tolist() != there.flatten()[:4].tolist()


def test_the_noise_is_standard_normal() -> None:
    noise = np.sort(seeded_noise(2024, (4, 128, 128)).astype(np.float64).flatten())
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert abs((noise**3).mean()) < 0.03
    assert abs((noise**4).mean() - 3) < 0.1
    cdf = np.array([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in noise])
    ranks = np.arange(1, noise.size + 1) / noise.size
    kolmogorov_smirnov = np.abs(cdf - ranks).max() * math.sqrt(noise.size)
    assert kolmogorov_smirnov < 1.63  # the 1% level


def test_neighbours_and_seeds_are_not_correlated() -> None:
    a, b = (seeded_noise(seed, (4, 64, 64)).flatten() for seed in (1, 2))
    bound = 4 / math.sqrt(a.size)
    assert abs(np.corrcoef(a, b)[0, 1]) < bound
    assert abs(np.corrcoef(a[:-1], a[1:])[0, 1]) < bound
    assert abs(np.corrcoef(a[::2], a[1::2])[0, 1]) < bound


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(TensorError, match=rf"seed is {seed}; it must be in 0\.\.2\^64-1"):
        seeded_noise(seed, (1, 1, 1))


def test_the_mode_is_the_mean() -> None:
    mean = torch.randn(2, 4, 3, 5)
    assert Posterior(mean, torch.zeros_like(mean)).mode() is mean
    assert Posterior(mean, None).mode() is mean


def test_a_sample_is_the_mean_plus_sigma_times_the_noise() -> None:
    generator = torch.Generator().manual_seed(5)
    mean, logvar = (torch.randn(2, 4, 3, 5, generator=generator) for _ in range(2))
    sample = Posterior(mean, logvar).sample([11, 12])
    assert sample.dtype == torch.float32
    for index, seed in enumerate([11, 12]):
        noise = torch.from_numpy(seeded_noise(seed, (4, 3, 5)))
        expected = mean[index] + torch.exp(0.5 * logvar[index]) * noise
        torch.testing.assert_close(sample[index], expected, rtol=1e-6, atol=1e-6)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    mean, logvar = torch.zeros(3, 4, 2, 2), torch.zeros(3, 4, 2, 2)
    together = Posterior(mean, logvar).sample([5, 6, 5])
    alone = Posterior(mean[:1], logvar[:1]).sample([5])
    assert torch.equal(together[0], alone[0])
    assert torch.equal(together[2], alone[0])
    assert not torch.equal(together[1], alone[0])


@pytest.mark.parametrize("wrong", [[], [1], [1, 2, 3]])
def test_a_wrong_number_of_seeds_is_refused(wrong: list[int]) -> None:
    posterior = Posterior(torch.zeros(2, 4, 1, 1), torch.zeros(2, 4, 1, 1))
    with pytest.raises(TensorError, match=f"{len(wrong)} seeds for 2 images"):
        posterior.sample(wrong)


def test_without_a_log_variance_there_is_no_sample() -> None:
    with pytest.raises(TensorError, match="ask for the mode"):
        Posterior(torch.zeros(1, 4, 1, 1), None).sample([1])


def test_a_posterior_stays_as_it_is() -> None:
    with pytest.raises(FrozenInstanceError):
        Posterior(torch.zeros(1, 1, 1, 1), None).mean = torch.ones(1, 1, 1, 1)  # type: ignore[misc]
