# SPDX-License-Identifier: Apache-2.0
"""Ways between latents, and latents from the prior: ends, norms, degenerate cases, what is refused."""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from latentwire_client import LatentKind, Latents, LatentSpaceMismatch, ModelInfo
from latentwire_core.noise import seeded_noise
from latentwire_lab import along_line, along_sphere, prior_samples
from latentwire_lab.paths import check_same_space

unhurried = settings(deadline=None)
numbers = st.floats(-100, 100, width=32)
shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=4)


def point(*values: float) -> Latents:
    return Latents(np.array(values, np.float32).reshape(1, -1, 1, 1))


def rows(latents: Latents) -> npt.NDArray[np.float64]:
    return latents.values.reshape(len(latents), -1).astype(np.float64)


@st.composite
def two_points(draw: st.DrawFn) -> tuple[Latents, Latents]:
    shape = draw(shapes)
    dtype = draw(st.sampled_from([np.float32, np.float16]))
    elements = st.floats(-100, 100, width=16)
    one, other = (draw(hnp.arrays(dtype, (1, *shape), elements=elements)) for _ in range(2))
    return Latents(one), Latents(other)


def model(**settings: object) -> ModelInfo:
    values: dict[str, object] = {
        "name": "m", "class_name": "M", "latent_space": "m@1", "weights_digest": "1" * 64, "file_sha256": "",
        "latent_channels": 4, "downsample_factor": 8, "scale": (1.0,), "shift": (0.0,), "has_logvar": True,
        "fixed_size": None, "parameters": 1, "dtype": "float32", "device": "cpu", "config": {}, "loaded": True,
        "rewrites": False,
    }  # fmt: skip
    return ModelInfo(**{**values, **settings})  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------------------
# Between two points
# ---------------------------------------------------------------------------------------------------------------------


@unhurried
@given(two_points(), st.integers(2, 9))
def test_both_ways_begin_and_end_exactly_at_the_points(points: tuple[Latents, Latents], steps: int) -> None:
    start, end = points
    for path in (along_line(start, end, steps), along_sphere(start, end, steps)):
        assert path.values.shape == (steps, *start.values.shape[1:])
        assert path.values.dtype == np.float32
        np.testing.assert_array_equal(path.values[0], start.values[0])
        np.testing.assert_array_equal(path.values[-1], end.values[0])
        assert np.isfinite(path.values).all()


@unhurried
@given(two_points(), st.integers(2, 9))
def test_the_line_is_evenly_spaced(points: tuple[Latents, Latents], steps: int) -> None:
    path = rows(along_line(*points, steps))
    np.testing.assert_allclose(np.diff(path, axis=0), (path[-1] - path[0]) / (steps - 1) + 0 * path[1:], atol=1e-4)


@unhurried
@given(two_points(), st.integers(2, 9))
def test_on_the_sphere_the_norm_goes_evenly_from_one_end_to_the_other(
    points: tuple[Latents, Latents], steps: int
) -> None:
    start, end = points
    path = rows(along_sphere(start, end, steps))
    norms = np.linalg.norm(path, axis=1)
    # A zero has no direction, and a single number no sphere about the origin: there the path is the line.
    if norms[0] and norms[-1] and path.shape[1] > 1:
        np.testing.assert_allclose(norms, np.linspace(norms[0], norms[-1], steps), rtol=1e-5)
    else:
        np.testing.assert_array_equal(path, rows(along_line(start, end, steps)))


@unhurried
@given(st.integers(0, 2**32), st.integers(2, 64), st.integers(3, 9))
def test_the_sphere_is_cut_into_equal_angles_in_the_plane_of_its_ends(seed: int, size: int, steps: int) -> None:
    one, other = np.random.default_rng(seed).normal(size=(2, size))
    path = rows(along_sphere(point(*one), point(*other), steps))
    directions = path / np.linalg.norm(path, axis=1, keepdims=True)
    angles = np.arccos(np.clip((directions[1:] * directions[:-1]).sum(axis=1), -1, 1))
    whole = math.acos(float(np.clip(directions[0] @ directions[-1], -1, 1)))
    np.testing.assert_allclose(angles, whole / (steps - 1), atol=1e-3)
    assert np.linalg.matrix_rank(path, tol=1e-4) <= 2


def test_the_sphere_agrees_with_shoemakes_formula() -> None:
    one, other = np.array([3.0, 0.0, 4.0]), np.array([0.0, 5.0, 0.0])
    path = rows(along_sphere(point(*one), point(*other), 5))
    omega = math.acos(one @ other / 25)
    expected = [
        (math.sin((1 - t) * omega) * one + math.sin(t * omega) * other) / math.sin(omega) for t in np.linspace(0, 1, 5)
    ]
    np.testing.assert_allclose(path, expected, atol=1e-6)


def test_from_a_point_to_itself_nothing_moves() -> None:
    same = point(1, 2, 3)
    np.testing.assert_allclose(rows(along_sphere(same, same, 4)), [[1, 2, 3]] * 4, rtol=1e-6)


def test_along_one_direction_only_the_norm_changes() -> None:
    np.testing.assert_allclose(rows(along_sphere(point(1, 2), point(3, 6), 3)), [[1, 2], [2, 4], [3, 6]], rtol=1e-6)


def test_opposite_ends_are_joined_around_the_origin_not_through_it() -> None:
    path = rows(along_sphere(point(2, 0, 0), point(-2, 0, 0), 3))
    np.testing.assert_allclose(path[1], [0, 2, 0], atol=1e-6)


def test_nearly_opposite_ends_keep_their_norm() -> None:
    path = rows(along_sphere(point(1, 0, 0), point(-1, 1e-9, 0), 9))
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("end", [(0.0, 0.0), (1.0, 1.0)])
def test_a_zero_has_no_direction_so_the_path_is_the_line(end: tuple[float, float]) -> None:
    path = along_sphere(point(0, 0), point(*end), 3)
    np.testing.assert_array_equal(path.values, along_line(point(0, 0), point(*end), 3).values)


def test_a_path_keeps_the_origin_and_takes_the_mean_of_moments() -> None:
    start = Latents(
        np.ones((1, 4, 2, 2), np.float16), np.zeros((1, 4, 2, 2), np.float16), LatentKind.MOMENTS,
        image_size=(15, 16), model="m", latent_space="m@1", weights_digest="1" * 64,
    )  # fmt: skip
    path = along_line(start, replace(start, model="copy"), 3)
    assert (path.kind, path.logvar, path.scaled) == (LatentKind.MODE, None, False)
    assert (path.image_size, path.model, path.latent_space) == ((15, 16), "m", "m@1")
    assert [len(each) for each in path.split()] == [1, 1, 1]


@pytest.mark.parametrize("way", [along_line, along_sphere])
def test_ends_that_do_not_belong_together_are_refused(way: object) -> None:
    assert callable(way)
    one = point(1, 2)
    with pytest.raises(ValueError, match="1 steps; 2 are needed"):
        way(one, one, 1)
    with pytest.raises(ValueError, match=r"the shapes \(2, 1, 1\) and \(3, 1, 1\)"):
        way(one, point(1, 2, 3), 3)
    with pytest.raises(ValueError, match="one end is scaled"):
        way(one, replace(one, scaled=True), 3)
    with pytest.raises(ValueError, match="1 and 2 images"):
        way(one, Latents(np.zeros((2, 2, 1, 1), np.float32)), 3)
    with pytest.raises(LatentSpaceMismatch, match="'a@1', the other of 'b@1'"):
        way(replace(one, latent_space="a@1"), replace(one, latent_space="b@1"), 3)


# ---------------------------------------------------------------------------------------------------------------------
# Spaces
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        (("", ""), ("", ""), True),
        (("", ""), ("a", "1"), True),
        (("a", "1"), ("a", "2"), True),  # two decoders of one space
        (("a", "1"), ("b", "1"), False),
        (("a", "1"), ("", "1"), True),
        (("a", "1"), ("", "2"), False),
        (("", "1"), ("", "2"), False),
        (("a", ""), ("", "1"), False),
    ],
)
def test_names_of_spaces_decide_and_weights_where_a_name_is_missing(
    one: tuple[str, str], other: tuple[str, str], fits: bool
) -> None:
    first, second = (replace(point(1), latent_space=space, weights_digest=digest) for space, digest in (one, other))
    for pair in ((first, second), (second, first)):
        if fits:
            check_same_space(*pair)
        else:
            with pytest.raises(LatentSpaceMismatch, match="take both from one model"):
                check_same_space(*pair)


# ---------------------------------------------------------------------------------------------------------------------
# The prior
# ---------------------------------------------------------------------------------------------------------------------


def test_prior_samples_are_the_seeded_noise_of_each_image() -> None:
    samples = prior_samples(model(), [7, 2**64 - 1], (60, 65))
    assert samples.values.shape == (2, 4, 8, 9)
    np.testing.assert_array_equal(samples.values[0], seeded_noise(7, (4, 8, 9)))
    assert (samples.kind, samples.scaled, samples.image_size) == (LatentKind.SAMPLE, False, (60, 65))
    assert (samples.model, samples.latent_space, samples.weights_digest) == ("m", "m@1", "1" * 64)


def test_an_image_of_the_prior_does_not_depend_on_its_neighbours() -> None:
    together = prior_samples(model(), [3, 4, 5], (8, 8))
    np.testing.assert_array_equal(together.values[1:2], prior_samples(model(), [4], (8, 8)).values)


def test_a_vector_model_has_one_position_and_knows_its_size() -> None:
    faces = model(latent_channels=32, downsample_factor=64, fixed_size=(64, 64))
    assert faces.is_vector
    assert not model().is_vector
    for size in (None, (64, 64)):
        samples = prior_samples(faces, [0], size)
        assert (samples.values.shape, samples.image_size) == ((1, 32, 1, 1), (64, 64))


@pytest.mark.parametrize(
    ("settings", "seeds", "size", "words"),
    [
        ({}, [], (8, 8), "no seeds"),
        ({}, [-1], (8, 8), "seed is -1"),
        ({}, [0], None, "images of any size; give image_size"),
        ({}, [0], (0, 8), "at least 1"),
        ({"fixed_size": (64, 64), "downsample_factor": 64}, [0], (32, 32), "makes images of"),
    ],
)
def test_samples_that_cannot_be_drawn_are_refused(
    settings: dict[str, object], seeds: list[int], size: tuple[int, int] | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        prior_samples(model(**settings), seeds, size)
