# SPDX-License-Identifier: Apache-2.0
"""Sources in, endless samples out: the same whatever is interrupted, and by how many workers they are made."""

import itertools
import logging
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentwire_core.errors import DataError
from latentwire_train.data.cache import ImageCache
from latentwire_train.data.crops import Cover, RandomCrop
from latentwire_train.data.folder import ImageFolder, Problem, Subset, scan_images
from latentwire_train.data.stream import SampleStream, permutation

# Three workers on a small machine, and forks beside the threads of other tests, are meant.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create", "ignore:This process .* is multi-threaded:DeprecationWarning"
)
COUNT = 11


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    """Eleven images of mixed sizes, each of one colour that says which it is, over a gradient."""
    for k in range(COUNT):
        pixels = np.zeros((20 + k, 30 - k, 3), np.uint8)
        pixels[:, :, 0] = k * 20
        pixels[:, :, 1:] = np.random.default_rng(k).integers(0, 256, (20 + k, 30 - k, 2))
        Image.fromarray(pixels).save(tmp_path / f"{k:02}.png")
    return scan_images(tmp_path, min_side=16)


def damage(folder: ImageFolder, index: int) -> None:
    path = Path(folder.items[index].origin.location)
    path.write_bytes(path.read_bytes()[:100])


def test_a_sample_depends_on_its_number_and_the_seed_only(folder: ImageFolder) -> None:
    one, two = (SampleStream(folder, RandomCrop(16), seed=5) for _ in range(2))
    forwards = [one.sample(n) for n in range(30)]
    for n in (29, 3, 17, 3):
        assert torch.equal(two.sample(n), forwards[n])
    assert forwards[0].shape == (3, 16, 16)
    assert forwards[0].dtype == torch.uint8
    other = SampleStream(folder, RandomCrop(16), seed=6)
    assert any(not torch.equal(other.sample(n), forwards[n]) for n in range(3))


def test_every_image_comes_once_in_each_epoch_in_a_new_order(folder: ImageFolder) -> None:
    stream = SampleStream(folder, Cover(8), seed=5)
    epochs = [[stream.image_index(n) for n in range(e * COUNT, (e + 1) * COUNT)] for e in range(4)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    reds = [int(stream.sample(n)[0, 4, 4]) // 20 for n in range(COUNT)]
    assert reds == epochs[0]


def test_the_permutation_is_fair() -> None:
    firsts = [int(permutation(1, epoch, 5)[0]) for epoch in range(2000)]
    counts = np.bincount(firsts, minlength=5)
    assert np.abs(counts - 400).max() < 4 * (2000 * 0.2 * 0.8) ** 0.5


@pytest.mark.own_process
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_run_that_goes_on_sees_what_an_uninterrupted_one_sees(folder: ImageFolder, workers: int) -> None:
    stream = SampleStream(ImageCache(folder, 4000), RandomCrop(16), seed=5)
    whole = torch.stack([stream.sample(n) for n in range(40)])
    for start in (0, 8, 13):
        batches = list(itertools.islice(stream.batches(4, start=start, workers=workers), 5))
        assert torch.equal(torch.cat([batch.pixels for batch in batches]), whole[start : start + 20])
        found = torch.cat([batch.indices for batch in batches]).tolist()
        assert found == [stream.image_index(n) for n in range(start, start + 20)]
        assert all(batch.pixels.is_contiguous() for batch in batches)


@pytest.mark.own_process
def test_workers_that_are_started_afresh_make_the_same_samples(
    folder: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch's loader asks this module for its processes.
    for name in ("Process", "Queue", "Event"):
        monkeypatch.setattr(torch.multiprocessing, name, getattr(multiprocessing.get_context("spawn"), name))
    stream = SampleStream(ImageCache(folder, 4000), RandomCrop(16), seed=5)
    here, there = (next(stream.batches(4, start=9, workers=k)) for k in (0, 1))
    assert torch.equal(here.pixels, there.pixels)


def test_ranks_go_through_the_sequence_together(folder: ImageFolder) -> None:
    stream = SampleStream(folder, RandomCrop(16), seed=5)
    alone = torch.cat([batch.pixels for batch in itertools.islice(stream.batches(6, start=3), 4)])
    ranks = [list(itertools.islice(stream.batches(2, start=3, rank=r, ranks=3), 4)) for r in range(3)]
    together = torch.cat([ranks[r][step].pixels for step in range(4) for r in range(3)])
    assert torch.equal(alone, together)


@pytest.mark.own_process
def test_workers_end_with_the_batches(folder: ImageFolder) -> None:
    batches = SampleStream(folder, RandomCrop(16), seed=5).batches(4, workers=2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    del batches
    assert multiprocessing.active_children() == []


@pytest.mark.own_process
def test_the_global_random_state_is_left_alone(folder: ImageFolder) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    next(SampleStream(folder, RandomCrop(16), seed=5).batches(4, workers=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.own_process
@pytest.mark.parametrize("workers", [0, 3])
def test_a_damaged_image_is_reported_once_and_replaced(folder: ImageFolder, workers: int) -> None:
    damage(folder, 4)
    found: list[Problem] = []
    stream = SampleStream(folder, Cover(8), seed=5, report=found.append)
    batches = list(itertools.islice(stream.batches(COUNT, workers=workers), 5))
    assert [problem.name for problem in found] == ["04.png"]
    assert "truncated" in found[0].reason
    assert stream.problems == tuple(found)
    for epoch, batch in enumerate(batches):
        assert batch.pixels[:, 0, 4, 4].div(20, rounding_mode="floor").tolist() == batch.indices.tolist()
        places = [stream.image_index(n) for n in range(epoch * COUNT, (epoch + 1) * COUNT)]
        at = places.index(4)
        # The one that follows in the epoch stands in for it, and nothing else changes.
        assert batch.indices.tolist() == [*places[:at], places[(at + 1) % COUNT], *places[at + 1 :]]


def test_a_damaged_image_leaves_the_other_samples_as_they_were(folder: ImageFolder) -> None:
    whole = [SampleStream(folder, RandomCrop(16), seed=5).sample(n) for n in range(COUNT)]
    damage(folder, 4)
    stream = SampleStream(folder, RandomCrop(16), seed=5, report=lambda _: None)
    for n in range(COUNT):
        assert stream.image_index(n) == 4 or torch.equal(stream.sample(n), whole[n])


def test_a_file_that_disappears_or_shrinks_is_replaced_too(folder: ImageFolder) -> None:
    Path(folder.items[2].origin.location).unlink()
    Image.new("RGB", (15, 15)).save(folder.items[3].origin.location)
    found: list[Problem] = []
    stream = SampleStream(folder, RandomCrop(16), seed=5, max_bad_share=0.2, report=found.append)
    for n in range(COUNT):
        stream.sample(n)
    assert {str(problem) for problem in found} == {
        "02.png: No such file or directory",
        "03.png: is 15x15; each side must be at least 16 px",
    }


@pytest.mark.own_process
@pytest.mark.parametrize("workers", [0, 1])
def test_more_damaged_images_than_the_share_are_an_error_that_names_them(folder: ImageFolder, workers: int) -> None:
    for index in (1, 2, 3):
        damage(folder, index)
    stream = SampleStream(folder, Cover(8), seed=5, max_bad_share=0.2, report=lambda _: None)
    with pytest.raises(
        DataError, match=r"^3 of 11 images cannot be decoded, more than the allowed share of 0.2: .*0[123].png: "
    ):
        list(itertools.islice(stream.batches(COUNT, workers=workers), 3))
    patient = SampleStream(folder, Cover(8), seed=5, max_bad_share=0.3, report=lambda _: None)
    assert len(list(itertools.islice(patient.batches(COUNT, workers=workers), 3))) == 3


def test_a_source_of_which_nothing_can_be_read_is_an_error(folder: ImageFolder) -> None:
    damage(folder, 0)
    only = Subset(folder, (0,))
    with pytest.raises(DataError, match=r"1 images in a row cannot be decoded: 00.png"):
        SampleStream(only, Cover(8), seed=5, report=lambda _: None).sample(0)
    with pytest.raises(DataError, match="there is no image to take"):
        SampleStream(Subset(folder, ()), Cover(8), seed=5)


def test_without_a_listener_damage_is_logged(folder: ImageFolder, caplog: pytest.LogCaptureFixture) -> None:
    damage(folder, 4)
    stream = SampleStream(folder, Cover(8), seed=5)
    with caplog.at_level(logging.WARNING, "latentwire.train"):
        for n in range(3 * COUNT):
            stream.sample(n)
    assert [record.getMessage()[:15] for record in caplog.records] == ["skipped 04.png:"]


def test_numbers_out_of_range_are_refused(folder: ImageFolder) -> None:
    stream = SampleStream(folder, Cover(8), seed=5)
    with pytest.raises(ValueError, match="sample number is -1"):
        stream.sample(-1)
    with pytest.raises(ValueError, match="batch_size is 0"):
        stream.batches(0)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        stream.batches(1, rank=2, ranks=2)
    with pytest.raises(ValueError, match="workers -1"):
        stream.batches(1, workers=-1)
    with pytest.raises(ValueError, match="seed is -5"):
        SampleStream(folder, Cover(8), seed=-5)
    with pytest.raises(ValueError, match="max_bad_share is 2"):
        SampleStream(folder, Cover(8), seed=5, max_bad_share=2)
