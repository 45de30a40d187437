# SPDX-License-Identifier: Apache-2.0
"""Pixels and random numbers in, squares out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire_codec.images.geometry import Pixels
from latentwire_core.draws import Draws
from latentwire_core.errors import ImageError
from latentwire_train.data.crops import CentreCrop, Cover, RandomCrop, area_shrink

unhurried = settings(deadline=None)  # a busy machine is no failure


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def coordinates(height: int, width: int) -> Pixels:
    """Pixels that say where they are: red is the row, green the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows * 0], axis=2).astype(np.uint8)


def test_shrinking_by_a_whole_factor_is_the_mean_of_the_blocks() -> None:
    pixels = noise(12, 20)
    blocks = pixels.reshape(4, 3, 5, 4, 3).mean(axis=(1, 3))
    assert np.abs(area_shrink(pixels, 4, 5) - blocks).max() <= 0.5 + 1e-3


@unhurried
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_each_pixel_is_the_mean_of_the_area_under_it(height: int, width: int, data: st.DataObject) -> None:
    new_height, new_width = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    pixels = noise(height, width)
    # Every pixel is split into as many parts as makes all edges fall between them.
    fine = pixels.repeat(new_height, axis=0).repeat(new_width, axis=1)
    means = fine.reshape(new_height, height, new_width, width, 3).mean(axis=(1, 3))
    assert np.abs(area_shrink(pixels, new_height, new_width) - means).max() <= 0.5 + 1e-3


def test_shrinking_to_the_same_size_changes_nothing_and_white_stays_white() -> None:
    pixels = noise(9, 7)
    np.testing.assert_array_equal(area_shrink(pixels, 9, 7), pixels)
    assert (area_shrink(np.full((97, 89, 3), 255, np.uint8), 31, 29) == 255).all()


def test_shrinking_never_enlarges() -> None:
    with pytest.raises(ValueError, match="7x9 cannot be shrunk to 8x9"):
        area_shrink(noise(9, 7), 9, 8)


def test_crops_lie_inside_the_image_and_reach_every_edge() -> None:
    framing = RandomCrop(16, scaled_share=0.5, max_scale=2)
    tops, lefts, bottoms, rights = (set[int]() for _ in range(4))
    for n in range(3000):
        top, left, side, _ = framing.place(40, 24, Draws(0, 0, n))
        assert 16 <= side <= 24  # the short side
        assert 0 <= top <= 40 - side
        assert 0 <= left <= 24 - side
        for seen, value in ((tops, top), (lefts, left), (bottoms, top + side), (rights, left + side)):
            seen.add(value)
    assert min(tops) == min(lefts) == 0
    assert (max(bottoms), max(rights)) == (40, 24)


def test_the_share_of_scaled_crops_and_of_mirrored_ones_is_met() -> None:
    count = 4000
    framing = RandomCrop(16, scaled_share=0.3, max_scale=4, mirror_share=0.7)
    places = [framing.place(100, 100, Draws(3, 0, n)) for n in range(count)]
    sides = [side for _, _, side, _ in places if side > 16]
    assert abs(len(sides) / count - 0.3) < 4 * (0.3 * 0.7 / count) ** 0.5
    assert max(sides) <= 64
    assert abs(sum(mirrored for *_, mirrored in places) / count - 0.7) < 4 * (0.3 * 0.7 / count) ** 0.5
    # Log-uniform between 16 and 64: half of them below 32.
    assert abs(np.mean([side < 32 for side in sides]) - 0.5) < 0.06


@pytest.mark.parametrize(("scaled", "mirrored"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
def test_a_crop_shows_the_part_of_the_image_that_its_place_says(scaled: float, mirrored: float) -> None:
    framing = RandomCrop(16, scaled_share=scaled, max_scale=3, mirror_share=mirrored)
    pixels = coordinates(60, 50)
    for n in range(20):
        top, left, side, _ = framing.place(60, 50, Draws(1, 1, n))
        square = framing(pixels, Draws(1, 1, n))
        assert square.shape == (16, 16, 3)
        assert square.flags.c_contiguous
        centres = (np.arange(16) + 0.5) * side / 16 - 0.5
        rows, columns = top + centres, left + centres
        assert np.abs(square[:, :, 0] - rows[:, None]).max() <= 0.51
        assert np.abs(square[:, :, 1] - (columns[::-1] if mirrored else columns)[None]).max() <= 0.51


def test_an_image_of_the_crops_size_is_taken_whole() -> None:
    pixels = noise(16, 16)
    np.testing.assert_array_equal(RandomCrop(16, mirror_share=0)(pixels, Draws(0, 0, 0)), pixels)


def test_an_image_that_is_too_small_is_refused() -> None:
    for framing in (RandomCrop(16), CentreCrop(16)):
        assert framing.min_side == 16
        with pytest.raises(ImageError, match="is 15x40; each side must be at least 16 px"):
            framing(noise(40, 15), Draws(0, 0, 0))


def test_the_centre_crop_is_the_middle() -> None:
    square = CentreCrop(4)(coordinates(10, 21), Draws(0, 0, 0))
    assert (square[0, 0].tolist(), square[-1, -1].tolist()) == ([3, 8, 0], [6, 11, 0])


def test_cover_takes_the_middle_and_keeps_an_image_of_its_size() -> None:
    pixels = noise(28, 28)
    np.testing.assert_array_equal(Cover(28)(pixels, Draws(0, 0, 0)), pixels)
    assert Cover(32)(pixels, Draws(0, 0, 0)).shape == (32, 32, 3)
    face = coordinates(218, 178)
    np.testing.assert_array_equal(Cover(178)(face, Draws(0, 0, 0)), face[20:198])
    mirrored = Cover(28, mirror_share=1)(pixels, Draws(0, 0, 0))
    np.testing.assert_array_equal(mirrored, pixels[:, ::-1])


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="size is 0"):
        RandomCrop(0)
    with pytest.raises(ValueError, match=r"scaled_share is 1.5"):
        RandomCrop(8, scaled_share=1.5)
    with pytest.raises(ValueError, match="max_scale is nan"):
        RandomCrop(8, max_scale=float("nan"))
    with pytest.raises(ValueError, match="mirror_share is -1"):
        Cover(8, mirror_share=-1)
