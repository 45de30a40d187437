# SPDX-License-Identifier: Apache-2.0
"""Steps fit a header; an integer is one of the two next to its latent, and comes back within a step, exactly."""

import math
from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire_codec.lat import coder
from latentwire_codec.lat.bits import Integers
from latentwire_codec.lat.context import ESCAPE, FREQUENCY_BITS, LIMIT, WEIGHT_BITS, ContextModel
from latentwire_codec.lat.quantizer import LAMBDA, LARGEST_OFFSET, Steps, dequantize, quantize, round_to
from latentwire_codec.lat.side_information import SideInformation
from latentwire_codec.lat.tables import common_tables
from latentwire_codec.lat.trace import Trace, trace
from latentwire_codec.lat.traversal import plan_of
from latentwire_core.errors import TensorError

Latents = npt.NDArray[np.float32]
unhurried = settings(deadline=None)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20))


def drawn(shape: tuple[int, int, int], seed: int) -> tuple[Latents, Steps, ContextModel]:
    random = np.random.default_rng(seed)
    latents = random.laplace(size=shape).astype(np.float32)
    latents[random.random(shape) < 0.02] *= 1000
    steps = Steps.nearest(10.0 ** random.uniform(-2, 1, shape[0]))
    return latents, steps, common_tables().context_model(SideInformation.fit(round_to(latents, steps)))


@unhurried
@given(shapes, st.integers(0, 999), st.sampled_from([0.0, LAMBDA, 10.0]))
def test_each_integer_is_one_of_the_two_next_to_its_latent(
    shape: tuple[int, int, int], seed: int, lambda_: float
) -> None:
    latents, steps, model = drawn(shape, seed)
    chosen, offset = quantize(latents, steps, model, lambda_)
    integers = chosen.integers
    exact = latents / steps.sizes[:, None, None]
    assert integers.shape == shape
    assert (np.abs(integers - exact) <= 1).all()
    assert 0 <= offset <= LARGEST_OFFSET
    if not lambda_:
        assert np.array_equal(integers, round_to(latents, steps))
        assert (np.abs(integers - exact) <= 0.5).all()


def symbols_of(integers: Integers, traced: Trace) -> Integers:
    """The symbols of other integers at the places of a trace, as docs/bitstream.md defines them."""
    shift = traced.shifts
    mean = np.where(shift > 0, (2 * traced.means - 16 * ((1 << shift) - 1)) >> (shift + 1), traced.means)
    distances = ((integers >> shift) - ((mean + 8) >> 4)) * np.where(mean % 16 < 8, 1, -1)
    return np.where(np.abs(distances) > 15, ESCAPE, distances + 15)


@pytest.mark.parametrize("lambda_", [0.0, LAMBDA, 0.5])
def test_each_integer_costs_no_more_than_the_other_one_next_to_its_latent(lambda_: float) -> None:
    latents, steps, model = drawn((3, 16, 17), 4)
    integers = quantize(latents, steps, model, lambda_)[0].integers
    real = latents.astype(np.float64) / steps.sizes[:, None, None]
    places = plan_of(16, 17).places
    compared = 0
    for channel, traced in enumerate(trace(integers, model)):
        chosen, wanted = (each[channel].reshape(-1)[places] for each in (integers, real))
        other = np.where(chosen < wanted, np.ceil(wanted), np.floor(wanted)).astype(np.int64)
        costs, coded = [], np.full(len(chosen), True)
        for each in (chosen, other):
            symbol = symbols_of(each, traced)
            bits = FREQUENCY_BITS - np.log2(model.frequencies[traced.tables, symbol])
            costs.append((wanted - each) ** 2 + lambda_ * bits)
            coded &= symbol != ESCAPE
        assert np.array_equal(symbols_of(chosen, traced), traced.symbols)
        assert (costs[0] <= costs[1] + 1e-9)[coded].all()
        assert (chosen == np.rint(wanted))[~coded].all()
        compared += int(coded.sum())
    assert compared > integers.size // 2


def test_a_bit_is_worth_by_default_about_what_it_saves_at_high_rates() -> None:
    latents, steps, model = drawn((2, 16, 17), 6)
    assert pytest.approx(math.log(2) / 6, rel=0.2) == LAMBDA
    default, given = quantize(latents, steps, model), quantize(latents, steps, model, LAMBDA)
    assert np.array_equal(default[0].integers, given[0].integers)
    assert default[1] == given[1]


@unhurried
@given(shapes, st.integers(0, 99))
def test_the_reconstruction_offset_is_the_one_of_the_least_error(shape: tuple[int, int, int], seed: int) -> None:
    latents, steps, model = drawn(shape, seed)
    chosen, found = quantize(latents, steps, model)
    error = (chosen.integers - latents.astype(np.float64) / steps.sizes[:, None, None]).reshape(-1)
    away = np.clip(chosen.integers - chosen.means / 16, -1, 1).reshape(-1)
    best = np.linalg.lstsq(away[:, None], 256 * error)[0].item()
    assert abs(found - min(max(best, 0), 255)) <= 0.5 + 1e-6


@pytest.mark.parametrize(("value", "mean", "expected"), [(0.49, 4, 255), (-0.45, 4, 0), (0.0625, 4, 64), (0.25, 0, 0)])
def test_the_reconstruction_offset_is_a_byte(value: float, mean: int, expected: int) -> None:
    latents, steps = np.full((1, 3, 3), value, np.float32), Steps((1,), 0)
    model = common_tables().context_model(SideInformation.fit(round_to(latents, steps)))
    constant = model._replace(
        mean_weights=np.zeros_like(model.mean_weights),
        mean_bias=np.full_like(model.mean_bias, mean << WEIGHT_BITS),
    )
    chosen, found = quantize(latents, steps, constant, 0)
    assert (chosen.means == mean).all()  # in sixteenths of a step
    assert found == expected


def test_fewer_bits_are_bought_with_error() -> None:
    latents, steps, model = drawn((4, 32, 32), 0)
    sizes, errors = [], []
    for lambda_ in (0.0, LAMBDA, 0.5):
        chosen, _ = quantize(latents, steps, model, lambda_)
        integers = chosen.integers
        coded = coder.encode(integers, model)
        sizes.append(sum(len(part) for part in vars(coded).values()))
        errors.append(float(((integers - latents / steps.sizes[:, None, None]) ** 2).mean()))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert sizes[0] > sizes[-1]


def test_chosen_integers_are_coded_as_if_they_were_given() -> None:
    latents, steps, model = drawn((4, 20, 33), 5)
    chosen, _ = quantize(latents, steps, model)
    assert chosen.coded == coder.encode(chosen.integers, model)


def test_the_pull_lowers_the_error() -> None:
    latents, steps, model = drawn((4, 32, 32), 3)
    chosen, offset = quantize(latents, steps, model)
    integers = chosen.integers
    _, means = coder.decode(coder.encode(integers, model), (4, 32, 32), model)
    with_pull, without = (
        float(((dequantize(integers, means, steps, each) - latents) ** 2).mean()) for each in (offset, 0)
    )
    assert offset > 0
    assert with_pull < without


@given(
    st.integers(1 - LIMIT, LIMIT - 1),
    st.integers(-(2**31), 2**31),
    st.integers(1, 65535),
    st.integers(-64, 63),
    st.integers(0, 255),
)
def test_a_latent_is_the_exact_value_rounded_once(
    integer: int, mean: int, numerator: int, exponent: int, offset: int
) -> None:
    found = dequantize(np.array([[[integer]]]), np.array([[[mean]]]), Steps((numerator,), exponent), offset)
    distance = max(-16, min(16, 16 * integer - mean))
    exact = Fraction(4096 * integer - offset * distance, 4096) * numerator * Fraction(2) ** -exponent
    assert found.dtype == np.float32
    # To float64 the fraction is exact; float32 is rounded to from there.
    assert Fraction(float(exact)) == exact
    assert found.item() == np.float32(float(exact))


@unhurried
@given(shapes, st.integers(0, 99), st.integers(0, LARGEST_OFFSET))
def test_what_comes_back_is_within_two_steps(shape: tuple[int, int, int], seed: int, offset: int) -> None:
    latents, steps, model = drawn(shape, seed)
    chosen, _ = quantize(latents, steps, model)
    integers = chosen.integers
    _, means = coder.decode(coder.encode(integers, model), shape, model)
    allowed = 2 * steps.sizes[:, None, None] + np.abs(latents) * 2.0**-20
    assert (np.abs(dequantize(integers, means, steps, offset) - latents) <= allowed).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 8388607.0, -1e30])
def test_a_latent_of_too_many_steps_is_refused(value: float) -> None:
    latents, steps = np.full((1, 2, 2), value, np.float32), Steps((1,), 0)
    with pytest.raises(TensorError, match="take larger steps"):
        round_to(latents, steps)


def test_the_most_steps_that_a_latent_may_have_can_be_coded() -> None:
    latents, steps = np.full((1, 2, 2), LIMIT - 2.0, np.float32), Steps((1,), 0)
    model = common_tables().context_model(SideInformation.fit(round_to(latents, steps)))
    chosen, _ = quantize(latents, steps, model)
    integers = chosen.integers
    assert np.array_equal(coder.decode(coder.encode(integers, model), (1, 2, 2), model)[0], integers)


# Steps

sizes = st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=8)


@given(sizes)
def test_steps_are_exact_to_a_part_of_the_largest(wanted: list[float]) -> None:
    steps = Steps.nearest(np.array(wanted))
    assert len(steps.numerators) == len(wanted)
    tolerance = max(wanted) * 2.0**-15
    assert steps.sizes == pytest.approx(wanted, rel=0, abs=tolerance)
    assert max(steps.numerators) >= 1 << 15


@given(st.lists(st.floats(0, math.inf, exclude_min=True), min_size=1, max_size=8))
def test_any_positive_size_gives_steps_that_a_header_holds(wanted: list[float]) -> None:
    steps = Steps.nearest(np.array(wanted))
    assert all(1 <= numerator <= 65535 for numerator in steps.numerators)
    assert -64 <= steps.exponent <= 63


def test_a_size_is_its_numerator_over_a_power_of_two() -> None:
    assert Steps((3, 65535), -2).sizes.tolist() == [12.0, 262140.0]
    assert Steps((1, 5), 63).sizes.tolist() == [2.0**-63, 5 * 2.0**-63]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([1.0], Steps((65535,), 16)),  # 2^16 has no room
        ([3.0], Steps((3 << 14,), 14)),
        ([1.0, 1e-9], Steps((65535, 1), 16)),
        ([2.0**-70], Steps((1,), 63)),
        ([math.inf], Steps((65535,), -63)),
    ],
)
def test_the_steps_nearest_to_sizes(wanted: list[float], expected: Steps) -> None:
    assert Steps.nearest(np.array(wanted)) == expected


def test_steps_stay_as_they_are() -> None:
    with pytest.raises(FrozenInstanceError):
        Steps((1,), 0).exponent = 1  # type: ignore[misc]
