# SPDX-License-Identifier: Apache-2.0
"""Sizes and pixels in, padded, cropped and resized pixels out."""

from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from latentwire_codec.images.geometry import (
    Pixels,
    check_pixels,
    crop,
    pad_to_multiple,
    padded_side,
    resize_to_cover,
)
from latentwire_core.errors import TensorError

coffee: Callable[[], Pixels] = skimage.data.coffee
sides = st.integers(1, 70)
unhurried = settings(deadline=None)  # a busy machine is no failure
multiples = st.sampled_from([1, 2, 8, 16, 64])


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


@unhurried
@given(side=st.integers(1, 10_000), multiple=st.integers(1, 512))
def test_padded_side_is_the_smallest_multiple_not_below(side: int, multiple: int) -> None:
    padded = padded_side(side, multiple)
    assert padded % multiple == 0
    assert 0 <= padded - side < multiple


@pytest.mark.parametrize(("side", "multiple"), [(0, 8), (-1, 8), (8, 0), (8, -8)])
def test_padded_side_refuses_numbers_below_one(side: int, multiple: int) -> None:
    with pytest.raises(ValueError, match="both must be >= 1"):
        padded_side(side, multiple)


@unhurried
@given(height=sides, width=sides, multiple=multiples)
def test_crop_undoes_padding(height: int, width: int, multiple: int) -> None:
    pixels = noise(height, width)
    padded = pad_to_multiple(pixels, multiple)
    assert padded.shape == (padded_side(height, multiple), padded_side(width, multiple), 3)
    assert padded.dtype == np.uint8
    np.testing.assert_array_equal(crop(padded, height, width), pixels)


def test_padding_returns_the_same_array_if_nothing_is_missing() -> None:
    pixels = noise(16, 24)
    assert pad_to_multiple(pixels, 8) is pixels


def test_padding_reflects_about_the_last_line() -> None:
    pixels = noise(9, 13)
    padded = pad_to_multiple(pixels, 8)
    np.testing.assert_array_equal(padded[9:16, :13], pixels[7:0:-1])
    np.testing.assert_array_equal(padded[:9, 13:16], pixels[:, 11:8:-1])


def test_padding_repeats_the_edge_on_an_axis_below_the_multiple() -> None:
    pixels = noise(3, 12)
    padded = pad_to_multiple(pixels, 8)
    for row in range(3, 8):
        np.testing.assert_array_equal(padded[row, :12], pixels[2])
    # The other axis is long enough, so it is reflected all the same.
    np.testing.assert_array_equal(padded[:3, 12:16], pixels[:, 10:6:-1])


def test_crop_keeps_the_top_left_and_is_contiguous() -> None:
    pixels = noise(10, 10)
    cut = crop(pixels, 4, 7)
    np.testing.assert_array_equal(cut, pixels[:4, :7])
    assert cut.flags.c_contiguous
    assert crop(pixels, 10, 10) is pixels


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (11, 5), (5, 11), (-1, 5)])
def test_crop_outside_the_image_is_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"cannot crop {width}x{height} from an image of 10x10"):
        crop(noise(10, 10), height, width)


@unhurried
@given(height=sides, width=sides, new_height=sides, new_width=sides)
# The side of the kept box, 17 / (17 / 7), is rounded to more than 7.
@example(height=5, width=7, new_height=1, new_width=17)
@example(height=7, width=5, new_height=17, new_width=1)
def test_resize_to_cover_has_the_size_asked_for(height: int, width: int, new_height: int, new_width: int) -> None:
    assert resize_to_cover(noise(height, width), new_width, new_height).shape == (
        new_height,
        new_width,
        3,
    )


def test_resize_to_cover_keeps_the_centre_of_a_wide_image() -> None:
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, :100, 0] = 255
    pixels[:, 100:200, 1] = 255
    pixels[:, 200:, 2] = 255
    resized = resize_to_cover(pixels, 50, 50)
    # Lanczos looks three pixels to each side.
    np.testing.assert_array_equal(resized[:, 3:-3], np.broadcast_to(np.array([0, 255, 0], np.uint8), (50, 44, 3)))


def test_resize_to_cover_keeps_the_centre_of_a_tall_image() -> None:
    pixels = np.zeros((300, 100, 3), np.uint8)
    pixels[100:200] = 200
    resized = resize_to_cover(pixels, 40, 40)
    np.testing.assert_array_equal(resized[3:-3], np.full((34, 40, 3), 200))


def test_resize_to_cover_equals_scaling_all_and_then_cutting() -> None:
    photo = coffee()  # 600x400
    scaled = Image.fromarray(photo).resize((300, 200), Image.Resampling.LANCZOS)
    difference = resize_to_cover(photo, 200, 200).astype(int) - np.asarray(scaled)[:, 50:250]
    assert np.abs(difference).max() <= 1


def test_resize_to_cover_of_the_same_size_returns_the_same_array() -> None:
    pixels = noise(32, 48)
    assert resize_to_cover(pixels, 48, 32) is pixels


def test_resize_to_cover_of_an_extreme_aspect_ratio_needs_no_huge_image_between() -> None:
    assert resize_to_cover(noise(1, 8192), 512, 512).shape == (512, 512, 3)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-3, 5)])
def test_resize_to_an_empty_target_is_refused(width: int, height: int) -> None:
    with pytest.raises(ValueError, match=f"the target is {width}x{height}"):
        resize_to_cover(noise(8, 8), width, height)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        [[1, 2, 3]],
    ],
)
def test_arrays_that_are_not_rgb_pixels_are_refused(pixels: Pixels) -> None:
    for call in (
        lambda: check_pixels(pixels),
        lambda: pad_to_multiple(pixels, 8),
        lambda: crop(pixels, 1, 1),
        lambda: resize_to_cover(pixels, 8, 8),
    ):
        with pytest.raises(TensorError, match="give"):
            call()
