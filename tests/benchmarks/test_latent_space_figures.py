# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.latent_space` at toy size: every figure, table and number of docs/vae.md comes of it."""

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.latent_space.__main__ import make
from benchmarks.latent_space.comparison import STEPS
from benchmarks.latent_space.datasets import Plan, drawn_faces, written_digits

ROOT = Path(__file__).parents[2]
TINY = Plan(
    faces=40,
    digits=60,
    face_steps=2,
    digit_steps=2,
    batch_size=4,
    pairs=2,
    samples=4,
    stepped=3,
    weights=(0.1,),
    photographs=1,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what a tiny plan makes."""
    work, out = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("out")
    make(TINY, work, out)
    return out


def test_every_figure_and_table_is_made(made: Path) -> None:
    names = {path.name for path in made.iterdir()}
    assert {"comparison.png", "comparison.md", "samples.png", "morph.gif", "edits.png", "rounded.png"} <= names
    for path in made.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.mode == "P"
            assert min(picture.size) >= 100


def test_the_numbers_hold_what_was_measured(made: Path) -> None:
    numbers = json.loads((made / "numbers.json").read_text())
    assert numbers["plan"]["faces"] == 40
    assert set(numbers["models"]) == {"faces, autoencoder", "faces, VAE", "digits, autoencoder", "digits, VAE"}
    for name, found in numbers["models"].items():
        assert (found["total_kl_nats"] is None) == name.endswith("autoencoder")
        assert list(found["steps"]) == [str(step) for step in STEPS]
        assert found["unevenness"]["line"] >= 1
    assert [each["weight"] for each in numbers["weights"]] == [0.1]
    assert numbers["f8c4"]["rounded"][0]["psnr"] > 25
    assert "random labels" in numbers["attributes"]["VAE"]


def test_the_table_has_a_column_for_each_model(made: Path) -> None:
    lines = (made / "comparison.md").read_text().splitlines()
    assert lines[0] == "|  | faces, autoencoder | faces, VAE | digits, autoencoder | digits, VAE |"
    assert {line.count("|") for line in lines} == {6}


def test_no_test_face_is_trained_on_and_labels_are_those_of_the_faces(tmp_path: Path) -> None:
    data = drawn_faces(tmp_path, 20, lambda done, total: None)
    assert data.train.shape == (18, 64, 64, 3)
    assert data.test.shape == (2, 64, 64, 3)
    assert not any((face == other).all() for face in data.test for other in data.train)
    assert {len(labels) for labels in data.test_labels.values()} == {2}
    assert {len(labels) for labels in data.train_labels.values()} == {18}


def test_digits_come_at_the_size_that_models_see(tmp_path: Path) -> None:
    data = written_digits(tmp_path, 60)
    assert data.train.shape == (50, 32, 32, 3)
    assert data.test.shape == (10, 32, 32, 3)
    # Each image has one class, and every class has images.
    counts = [int((labels > 0).sum()) for labels in data.train_labels.values()]
    assert len(counts) == 10
    assert sum(counts) == 50
    assert min(counts) > 0
