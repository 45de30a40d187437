# SPDX-License-Identifier: Apache-2.0
"""Tables that are fitted to latents code such latents in fewer bytes, and are always tables that can be used."""

import numpy as np
import numpy.typing as npt
import pytest

from latentwire_codec.lat import coder, traversal
from latentwire_codec.lat.context import TABLES
from latentwire_codec.lat.quantizer import Steps, round_to
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import Tables
from latentwire_train.prior_fitting import fit_prior

Latents = npt.NDArray[np.float32]


def smooth(seed: int, shape: tuple[int, int, int] = (3, 24, 24)) -> Latents:
    """Latents that resemble their neighbours, in each channel more or less so from place to place."""
    random = np.random.default_rng(seed)
    plane = random.normal(size=shape)
    for axis in (1, 2):
        plane = plane + np.roll(plane, 1, axis) + np.roll(plane, -1, axis)
    plane *= np.linspace(0.2, 3, shape[2])
    latents: Latents = (plane / plane.std()).astype(np.float32)
    return latents


def in_deviations(latents: Latents, multiple: float) -> Steps:
    """Steps in standard deviations of each channel."""
    return Steps.nearest(latents.std(axis=(1, 2)).astype(np.float64) * multiple)


def samples(every: list[Latents], *multiples: float) -> list[tuple[Latents, Steps]]:
    return [(latents, in_deviations(latents, multiple)) for latents in every for multiple in multiples]


def size_of(latents: Latents, fitted: Tables, multiple: float) -> int:
    """Bytes of the integers with a step."""
    integers = round_to(latents, in_deviations(latents, multiple))
    prior = fitted.context_model(SideInformation.fit(integers))
    coded = coder.encode(integers, prior)
    assert np.array_equal(coder.decode(coded, traversal.shape_of(integers), prior)[0], integers)
    return sum(len(part) for part in vars(coded).values())


@pytest.fixture(scope="module")
def fitted() -> Tables:
    return fit_prior(samples([smooth(seed) for seed in range(4)], 0.3, 1.0))


def test_other_latents_of_the_kind_take_fewer_bytes_than_with_tables_of_another_kind(fitted: Tables) -> None:
    random = np.random.default_rng(9)
    noise = [random.choice([-1.0, 1.0], (3, 24, 24)).astype(np.float32) for _ in range(4)]
    other = fit_prior(samples(noise, 0.3, 1.0))
    for multiple in (0.3, 1.0):
        assert size_of(smooth(99), fitted, multiple) < 0.95 * size_of(smooth(99), other, multiple)


def test_tables_that_no_symbol_reached_still_have_all_symbols(fitted: Tables) -> None:
    assert fitted.frequencies.shape[0] == TABLES
    assert fitted.frequencies.min() >= 1
    size_of(smooth(5) * 1000, fitted, 1e-4)


def test_the_fit_is_the_same_every_time(fitted: Tables) -> None:
    again = fit_prior(samples([smooth(seed) for seed in range(4)], 0.3, 1.0))
    assert again.table_id == fitted.table_id


@pytest.mark.parametrize("shape", [(1, 1, 5), (2, 1, 2), (1, 2, 9)])
def test_maps_without_some_of_the_phases_can_be_fitted_to(shape: tuple[int, int, int]) -> None:
    latents = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert size_of(latents, fit_prior(samples([latents], 0.5)), 0.5) > 0
