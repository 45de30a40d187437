# SPDX-License-Identifier: Apache-2.0
"""Grids of images: every pixel is there, in its place, at a size at which one sees something."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latentwire_core.errors import TensorError
from latentwire_train.record.pictures import (
    COLUMNS,
    MARGIN,
    MAX_SIDE,
    MAX_WIDTH,
    MIN_SIDE,
    PAPER,
    reconstruction_grid,
    sample_grid,
)


def images(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def hwc(image: Tensor) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = image.permute(1, 2, 0).numpy()
    return pixels


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 19), height=st.integers(MIN_SIDE, 140), width=st.integers(MIN_SIDE, 140))
def test_every_sample_is_in_its_place_pixel_by_pixel(count: int, height: int, width: int) -> None:
    given = images(count, height, width)
    picture = sample_grid(given)
    covered = np.zeros(picture.shape[:2], bool)
    for index, image in enumerate(given):
        row, column = divmod(index, COLUMNS)
        top, left = MARGIN + row * (height + MARGIN), MARGIN + column * (width + MARGIN)
        place = np.s_[top : top + height, left : left + width]
        np.testing.assert_array_equal(picture[place], hwc(image))
        covered[place] = True
    assert (picture[~covered] == PAPER).all()


def test_each_reconstruction_is_right_below_its_original() -> None:
    originals, reconstructions = images(10, 100, 120), images(11, 100, 120)[:10]
    picture = reconstruction_grid(originals, reconstructions)
    pair = picture[MARGIN : MARGIN + 200 + MARGIN // 3, MARGIN + 120 + MARGIN :][:, :120]
    np.testing.assert_array_equal(pair[:100], hwc(originals[1]))
    np.testing.assert_array_equal(pair[-100:], hwc(reconstructions[1]))
    second_row = picture[MARGIN + 200 + MARGIN // 3 + MARGIN :, MARGIN:]
    np.testing.assert_array_equal(second_row[:100, :120], hwc(originals[8]))
    np.testing.assert_array_equal(second_row[-100 - MARGIN : -MARGIN, :120], hwc(reconstructions[8]))


@pytest.mark.parametrize(("side", "factor"), [(8, 12), (28, 4), (32, 3), (64, 2), (95, 2), (96, 1), (256, 1)])
def test_small_images_are_enlarged_each_pixel_to_a_square(side: int, factor: int) -> None:
    image = images(1, side, side)
    tile = sample_grid(image)[MARGIN:-MARGIN, MARGIN:-MARGIN]
    np.testing.assert_array_equal(tile, hwc(image[0]).repeat(factor, 0).repeat(factor, 1))


def test_large_images_are_scaled_down_and_keep_their_shape() -> None:
    picture = sample_grid(torch.full((1, 3, 600, 1200), 77, dtype=torch.uint8))
    assert picture.shape == (MAX_SIDE // 2 + 2 * MARGIN, MAX_SIDE + 2 * MARGIN, 3)
    assert (picture[MARGIN:-MARGIN, MARGIN:-MARGIN] == 77).all()


@pytest.mark.parametrize("side", [256, 300, 512])
def test_a_picture_is_no_wider_than_a_screen_shows(side: int) -> None:
    assert sample_grid(images(9, side, side)).shape[1] <= MAX_WIDTH


def test_what_is_no_set_of_pictures_is_refused() -> None:
    for wrong in (images(1, 8, 8).float(), images(1, 8, 8)[0], images(1, 8, 8)[:, :1], images(1, 8, 8)[:0]):
        with pytest.raises(TensorError, match=r"a picture needs uint8 \(B,3,H,W\), B >= 1"):
            sample_grid(wrong)
    with pytest.raises(TensorError, match="both must be equal"):
        reconstruction_grid(images(2, 8, 8), images(1, 8, 8))
