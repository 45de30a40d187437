# SPDX-License-Identifier: Apache-2.0
"""Attribute vectors: what is fitted, how it is measured, what an edit does, what a file keeps and what is refused."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize

from latentwire_client import Latents, LatentSpaceMismatch
from latentwire_lab import Attributes, AttributeVector, HeldOut, fit_attributes
from latentwire_lab.accuracy import wilson
from latentwire_lab.attributes import FORMAT
from latentwire_lab.fitting import RIDGE, unusable

METHODS = ("means", "logistic")
ORIGIN = {"model": "m", "latent_space": "m@1", "weights_digest": "1" * 64}

Labels = npt.NDArray[np.int64]


def labelled(
    images: int = 400, shape: tuple[int, int, int] = (6, 1, 1), step: float = 3.0, share: float = 0.5, seed: int = 0
) -> tuple[Latents, Labels, npt.NDArray[np.bool_]]:
    """Latents that are normal, and moved by `step` along the first number where the label is 1; a fifth is held out."""
    generator = np.random.default_rng(seed)
    labels = np.where(generator.random(images) < share, 1, -1)
    values = generator.normal(size=(images, *shape))
    values[:, 0, 0, 0] += step * (labels > 0)
    latents = Latents(values.astype(np.float32), image_size=(64, 48), **ORIGIN)  # type: ignore[arg-type]
    return latents, labels, np.arange(images) % 5 == 0


# ---------------------------------------------------------------------------------------------------------------------
# Accuracies
# ---------------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 5000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_interval_is_wilsons(counts: tuple[int, int]) -> None:
    right, total = counts
    square = 1.959964**2
    centre, spread = right + square / 2, (square * (right * (total - right) / total + square / 4)) ** 0.5
    found = wilson(right, total)
    assert found.value == right / total
    assert found.low == pytest.approx((centre - spread) / (total + square), abs=1e-6)
    assert found.high == pytest.approx((centre + spread) / (total + square), abs=1e-6)


def test_the_balanced_accuracy_is_one_half_for_a_guess_whatever_the_base_rate() -> None:
    always_no = HeldOut(with_right=0, with_all=10, without_right=990, without_all=990)
    assert (always_no.accuracy.value, always_no.base_rate) == (0.99, 0.99)
    assert always_no.balanced_accuracy.value == 0.5
    assert not always_no.beats_chance


def test_its_interval_is_newcombes_for_the_difference_of_the_two_shares() -> None:
    # The difference of the proportions 56/70 and 48/80 is 0.2, 0.0524 to 0.3339 by method 10 (Newcombe, 1998).
    # Half the sum with 32/80 in place of 48/80 is half that difference, shifted by 1/2.
    found = HeldOut(56, 70, 80 - 48, 80).balanced_accuracy
    assert found.value == pytest.approx(0.5 + 0.2 / 2)
    assert (found.low, found.high) == pytest.approx((0.5 + 0.0524 / 2, 0.5 + 0.3339 / 2), abs=1e-4)


@pytest.mark.parametrize("counts", [(2, 1, 0, 1), (0, 0, 0, 1), (-1, 1, 0, 1)])
def test_counts_that_contradict_each_other_are_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="images are right"):
        HeldOut(*counts)


# ---------------------------------------------------------------------------------------------------------------------
# Fitting
# ---------------------------------------------------------------------------------------------------------------------


def test_the_difference_of_means_is_just_that() -> None:
    latents, labels, away = labelled()
    vector = fit_attributes(latents, {"Smiling": labels}, away).vectors["Smiling"]
    having = latents.values[~away & (labels > 0)].mean(axis=0, dtype=np.float64)
    lacking = latents.values[~away & (labels < 0)].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(vector.direction, having - lacking, atol=1e-6)
    assert vector.direction[0, 0, 0] == pytest.approx(3, abs=0.3)
    assert (vector.fitted_with, vector.fitted_without) == ((~away & (labels > 0)).sum(), (~away & (labels < 0)).sum())


@pytest.mark.parametrize("method", METHODS)
def test_the_score_is_0_on_average_without_and_1_with(method: Any) -> None:
    latents, labels, away = labelled(shape=(4, 3, 2))
    vector = fit_attributes(latents, {"Smiling": labels}, away, method).vectors["Smiling"]
    scores = vector.score(latents.values)
    assert scores[~away & (labels > 0)].mean() == pytest.approx(1, abs=1e-5)
    assert scores[~away & (labels < 0)].mean() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_an_edit_raises_the_score_by_its_strength(method: Any) -> None:
    latents, labels, away = labelled(shape=(4, 3, 2))
    attributes = fit_attributes(latents, {"Smiling": labels}, away, method)
    score = attributes.vectors["Smiling"].score
    edited = attributes.edit(latents, {"Smiling": -1.5})
    np.testing.assert_allclose(score(edited.values), score(latents.values) - 1.5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_held_out_images_are_counted_and_not_fitted_to(method: Any) -> None:
    latents, labels, away = labelled()
    vector = fit_attributes(latents, {"Smiling": labels}, away, method).vectors["Smiling"]
    held_out, found = vector.held_out, vector.score(latents.values)[away] >= 0.5
    true = labels[away] > 0
    assert (held_out.with_all, held_out.without_all) == (true.sum(), (~true).sum())
    assert (held_out.with_right, held_out.without_right) == ((found & true).sum(), (~found & ~true).sum())
    assert held_out.accuracy.value == (found == true).mean()
    assert held_out.accuracy.value > 0.85
    assert held_out.beats_chance
    strange = latents.values.copy()
    strange[away] = 1000
    other = fit_attributes(replace(latents, values=strange), {"Smiling": labels}, away, method).vectors["Smiling"]
    np.testing.assert_array_equal(other.direction, vector.direction)


@pytest.mark.parametrize("method", METHODS)
def test_random_labels_are_no_better_than_chance(method: Any) -> None:
    latents, _, away = labelled(images=500, shape=(8, 2, 2))
    generator = np.random.default_rng(1)
    labels = {f"Random_{index}": generator.choice([-1, 1], 500) for index in range(40)}
    vectors = fit_attributes(latents, labels, away, method).vectors.values()
    # One in forty is called better by chance alone; four would be very bad luck.
    assert sum(vector.held_out.beats_chance for vector in vectors) <= 3
    assert (
        sum(
            vector.held_out.balanced_accuracy.low <= 0.5 <= vector.held_out.balanced_accuracy.high for vector in vectors
        )
        >= 35
    )


def test_a_rare_attribute_is_recognised_though_always_saying_no_would_be_right_more_often() -> None:
    latents, labels, away = labelled(images=2000, share=0.04, step=2.5)
    for method in METHODS:
        held_out = fit_attributes(latents, {"Bald": labels}, away, method).vectors["Bald"].held_out  # type: ignore[arg-type]
        assert held_out.base_rate > 0.93
        assert held_out.balanced_accuracy.value > 0.75
        assert held_out.beats_chance


def test_logistic_regression_finds_the_minimum_that_scipy_finds() -> None:
    latents, labels, away = labelled(images=300, step=1.5)
    vector = fit_attributes(latents, {"a": labels, "b": -labels}, away, "logistic").vectors
    points = latents.values[~away].reshape(-1, 6).astype(np.float64)
    points -= points.mean(axis=0)
    points /= points.std()
    signs = labels[~away]

    def loss(weights: npt.NDArray[np.float64]) -> float:
        margins = signs * (points @ weights[1:] + weights[0])
        return float(np.logaddexp(0, -margins).mean() + RIDGE / 2 * (weights[1:] @ weights[1:]))

    expected = minimize(loss, np.zeros(7), tol=1e-12).x[1:]
    direction = vector["a"].direction.ravel().astype(np.float64)
    np.testing.assert_allclose(direction / np.linalg.norm(direction), expected / np.linalg.norm(expected), atol=1e-4)
    np.testing.assert_allclose(vector["b"].direction, -vector["a"].direction, atol=1e-5)


def test_logistic_regression_beats_the_means_where_both_kinds_vary_alike() -> None:
    latents, labels, away = labelled(images=1000, step=1.0)
    mixed = latents.values.copy()
    mixed[:, 0] += 3 * mixed[:, 1]  # noise in the attribute's number, which another one tells
    held_out = {
        method: fit_attributes(replace(latents, values=mixed), {"a": labels}, away, method).vectors["a"].held_out  # type: ignore[arg-type]
        for method in METHODS
    }
    assert held_out["logistic"].balanced_accuracy.value > held_out["means"].balanced_accuracy.value + 0.05


def test_logistic_regression_takes_more_dimensions_than_images() -> None:
    latents, labels, away = labelled(images=60, shape=(4, 8, 8), step=8.0)
    vector = fit_attributes(latents, {"a": labels}, away, "logistic").vectors["a"]
    assert vector.direction.shape == (4, 8, 8)
    assert vector.held_out.beats_chance


def test_what_cannot_be_fitted_is_named_with_its_reason() -> None:
    latents, labels, away = labelled(images=50)
    nowhere = np.full(50, -1)
    not_held_out = np.where(away, 1, labels)
    reasons = unusable({"Good": labels, "Bald": nowhere, "Odd": not_held_out}, away)
    assert reasons == {
        "Bald": "0 of the 40 images to fit to have it; both kinds are needed",
        "Odd": "10 of the 10 images to measure on have it; both kinds are needed",
    }
    with pytest.raises(ValueError, match="Bald: 0 of the 40 images"):
        fit_attributes(latents, {"Bald": nowhere}, away)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "svm"}, "method is 'svm'; it must be one of means, logistic"),
        ({"labels": {}}, "no attributes"),
        ({"labels": {"a": np.zeros(50, np.int64)}}, "a has labels other than 1 and -1"),
        ({"labels": {"a": np.ones(49, np.int64)}}, r"a has the shape \(49,\) for 50 images"),
        ({"held_out": np.zeros(3, np.bool_)}, r"held_out has the shape \(3,\)"),
        ({"scaled": True}, "are scaled"),
        ({"constant": True}, "a: the images with and without it have the same mean latents"),
    ],
)
def test_wrong_arguments_are_refused(change: Mapping[str, Any], message: str) -> None:
    latents, labels, away = labelled(images=50)
    latents = replace(latents, scaled=change.get("scaled", False))
    if "constant" in change:
        latents = replace(latents, values=np.ones_like(latents.values))
    with pytest.raises(ValueError, match=message):
        fit_attributes(
            latents, change.get("labels", {"a": labels}), change.get("held_out", away), change.get("method", "means")
        )


# ---------------------------------------------------------------------------------------------------------------------
# Editing
# ---------------------------------------------------------------------------------------------------------------------


def attributes_of(*names: str, **origin: Any) -> Attributes:
    vectors = {
        name: AttributeVector(name, np.full((2, 1, 1), number, np.float32), 0.25, 3, 4, HeldOut(8, 9, 7, 9))
        for number, name in enumerate(names, 1)
    }
    return Attributes(vectors, "means", (16, 16), **{**ORIGIN, **origin})


def test_several_attributes_are_added() -> None:
    latents = Latents(np.zeros((3, 2, 1, 1), np.float16), image_size=(16, 16), **ORIGIN)  # type: ignore[arg-type]
    edited = attributes_of("a", "b").edit(latents, {"a": 0.5, "b": -2})
    assert edited.values.dtype == np.float32
    np.testing.assert_array_equal(edited.values, np.full((3, 2, 1, 1), -3.5))
    assert (edited.image_size, edited.latent_space) == ((16, 16), "m@1")
    np.testing.assert_array_equal(latents.values, 0)


def test_edits_of_other_spaces_scales_shapes_and_names_are_refused() -> None:
    attributes = attributes_of("a")
    latents = Latents(np.zeros((1, 2, 1, 1), np.float32), **ORIGIN)  # type: ignore[arg-type]
    with pytest.raises(LatentSpaceMismatch, match="'other@1'"):
        attributes.edit(replace(latents, latent_space="other@1"), {"a": 1})
    with pytest.raises(LatentSpaceMismatch, match="222222222222"):
        attributes.edit(replace(latents, latent_space="", weights_digest="2" * 64), {"a": 1})
    with pytest.raises(ValueError, match="are scaled"):
        attributes.edit(replace(latents, scaled=True), {"a": 1})
    with pytest.raises(ValueError, match=r"\(2, 2, 1\), vectors \(2, 1, 1\); encode with size=\(16, 16\)"):
        attributes.edit(replace(latents, values=np.zeros((1, 2, 2, 1), np.float32)), {"a": 1})
    with pytest.raises(ValueError, match="no attribute 'b'; there are a"):
        attributes.edit(latents, {"b": 1})


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------


@st.composite
def any_attributes(draw: st.DrawFn) -> Attributes:
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, max_side=3))
    vectors = {}
    for name in draw(st.lists(st.text(max_size=9), min_size=1, max_size=4, unique=True)):
        counts = [draw(st.integers(0, 10**6)) for _ in range(2)]
        vectors[name] = AttributeVector(
            name,
            draw(hnp.arrays(np.float32, shape)),
            draw(st.floats(allow_nan=False)),
            draw(st.integers(0, 10**6)),
            draw(st.integers(0, 10**6)),
            HeldOut(counts[0], counts[0] + 1, counts[1], counts[1] + 2),
        )
    return Attributes(
        vectors, draw(st.sampled_from(["means", "logistic"])),
        draw(st.none() | st.tuples(st.integers(1, 9999), st.integers(1, 9999))),
        draw(st.text(max_size=9)), draw(st.text(max_size=9)), draw(st.text(max_size=9)),
    )  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(any_attributes())
def test_a_file_keeps_everything(tmp_path: Path, attributes: Attributes) -> None:
    loaded = Attributes.load(attributes.save(tmp_path / "folder" / "a.safetensors"))
    for name in ("method", "image_size", "model", "latent_space", "weights_digest", "latent_shape"):
        assert getattr(loaded, name) == getattr(attributes, name)
    assert list(loaded.vectors) == list(attributes.vectors)
    for one, other in zip(loaded.vectors.values(), attributes.vectors.values(), strict=True):
        assert one.direction.tobytes() == other.direction.tobytes()
        for name in ("name", "offset", "fitted_with", "fitted_without", "held_out"):
            assert getattr(one, name) == getattr(other, name)


def changed_file(path: Path, metadata: Mapping[str, str] = {}, **tensors: npt.NDArray[Any]) -> Path:
    whole = {
        "format": FORMAT, "method": "means", "image_size": "[16, 16]",
        "attributes": json.dumps([{"name": "a", "fitted": [3, 4], "held_out": [8, 9, 7, 9]}]),
    }  # fmt: skip
    arrays: dict[str, npt.NDArray[Any]] = {"directions": np.ones((1, 2, 1, 1), np.float32), "offsets": np.zeros(1)}
    save_file({**arrays, **tensors}, path, {**whole, **metadata})
    return path


def test_a_file_states_its_format_and_opens_in_any_safetensors_reader(tmp_path: Path) -> None:
    path = attributes_of("a", "b").save(tmp_path / "a.safetensors")
    tensors = load_file(path)
    assert (tensors["directions"].shape, tensors["offsets"].shape) == ((2, 2, 1, 1), (2,))
    assert Attributes.load(changed_file(tmp_path / "b.safetensors")).vectors["a"].held_out == HeldOut(8, 9, 7, 9)


@pytest.mark.parametrize(
    ("metadata", "tensors", "message"),
    [
        ({"format": "latentwire.attributes/2"}, {}, "has the format 'latentwire.attributes/2'; attribute vectors are"),
        ({"format": "latentwire.latents/1"}, {}, "has the format 'latentwire.latents/1'"),
        ({"method": "svm"}, {}, "the method is unknown"),
        ({"attributes": "[]"}, {}, "not a whole file of attribute vectors"),
        ({"attributes": "{"}, {}, "not a whole file of attribute vectors"),
        ({"attributes": '[{"name": "a"}]'}, {}, "not a whole file of attribute vectors"),
        ({"attributes": '[{"name": "a", "fitted": [3], "held_out": [8, 9, 7, 9]}]'}, {}, "not a whole file"),
        ({"attributes": '[{"name": "a", "fitted": [3, 4], "held_out": [9, 8, 7, 9]}]'}, {}, "9 of 8 images"),
        ({"image_size": "7"}, {}, "not a whole file of attribute vectors"),
        ({}, {"offsets": np.zeros(2)}, "not a whole file of attribute vectors"),
        ({}, {"directions": np.ones((1, 2, 1), np.float32)}, r"directions are float32 \(1, 2, 1\)"),
        ({}, {"directions": np.ones((1, 2, 1, 1), np.float64)}, "directions are float64"),
    ],
)
def test_other_files_are_refused(
    metadata: Mapping[str, str], tensors: Mapping[str, npt.NDArray[Any]], message: str, tmp_path: Path
) -> None:
    path = changed_file(tmp_path / "a.safetensors", metadata, **tensors)
    with pytest.raises(ValueError, match=message):
        Attributes.load(path)


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Attributes.load(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        Attributes.load(tmp_path / "a.safetensors")
