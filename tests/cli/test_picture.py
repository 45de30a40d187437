# SPDX-License-Identifier: Apache-2.0
"""Pictures of images: where everything stands, that nothing is cut off, and how an animation goes."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from latentwire_cli.picture import (
    FRAME_MS,
    GAP,
    PAPER,
    READABLE_SIDE,
    REST_MS,
    TITLE_WIDTH,
    Pixels,
    enlarged,
    sheet,
    shrunk,
    to_gif,
    to_png,
)

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=60)


def plain(level: int, height: int = 40, width: int = 60) -> Pixels:
    return np.full((height, width, 3), level, np.uint8)


def pixels_of(picture: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(picture.convert("RGB")).astype(np.int64)


def test_images_stand_in_rows_of_which_the_last_may_be_shorter() -> None:
    picture = pixels_of(sheet([[plain(10), plain(20)], [plain(30)]]))
    assert picture.shape == (2 * 40 + 3 * GAP, 2 * 60 + 3 * GAP, 3)
    np.testing.assert_array_equal(picture[GAP : GAP + 40, GAP : GAP + 60], plain(10))
    np.testing.assert_array_equal(picture[GAP : GAP + 40, 2 * GAP + 60 : -GAP], plain(20))
    np.testing.assert_array_equal(picture[2 * GAP + 40 : -GAP, GAP : GAP + 60], plain(30))
    assert (picture[2 * GAP + 40 :, GAP + 60 :] == PAPER).all()


@settings(deadline=None, max_examples=40)
@given(words, st.lists(words, min_size=3, max_size=3), st.lists(words, min_size=2, max_size=2), st.integers(1, 300))
def test_no_text_is_cut_off(title: str, captions: list[str], labels: list[str], side: int) -> None:
    rows = [[plain(100, side, side)] * 3] * 2
    picture = pixels_of(sheet(rows, title=title, captions=captions, labels=labels))
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (border == PAPER).all()
    images = (picture == 100).all(axis=2)
    assert images.sum() >= 6 * side * side


def test_a_caption_and_a_label_are_one_line_whatever_is_in_them() -> None:
    one, other = (sheet([[plain(0)]], captions=[text], labels=[text]) for text in ("two words", "two\nwords\r\n"))
    np.testing.assert_array_equal(pixels_of(one), pixels_of(other))


def test_a_title_is_wrapped_to_the_picture_not_the_picture_widened_to_the_title() -> None:
    title = "a title of many words " * 30
    picture = sheet([[plain(0)]], title=title)
    assert picture.width == TITLE_WIDTH + 2 * GAP
    assert picture.height > sheet([[plain(0)]], title="short").height + 100


def test_a_line_end_in_a_title_is_kept() -> None:
    one, two = (sheet([[plain(0)]], title=title) for title in ("above below", "above\nbelow"))
    assert two.height > one.height


def test_a_png_keeps_every_pixel() -> None:
    picture = sheet([[np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)]])
    np.testing.assert_array_equal(pixels_of(Image.open(io.BytesIO(to_png(picture)))), pixels_of(picture))


@pytest.mark.parametrize(("side", "factor"), [(1, 96), (28, 4), (64, 2), (95, 2), (96, 1), (512, 1)])
def test_small_images_are_enlarged_by_whole_pixels(side: int, factor: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (side, side + 3, 3), dtype=np.uint8)
    (larger,) = enlarged([image])
    assert larger.shape == (factor * side, factor * (side + 3), 3)
    assert min(larger.shape[:2]) >= READABLE_SIDE
    np.testing.assert_array_equal(larger[::factor, ::factor], image)


def test_large_images_are_shrunk_in_proportion_and_others_left_alone() -> None:
    assert [image.shape for image in shrunk([plain(7, 300, 600), plain(7, 300, 600)], 200)] == [(100, 200, 3)] * 2
    assert shrunk([plain(7, 1, 600)], 200)[0].shape == (1, 200, 3)
    (same,) = shrunk([plain(7, 30, 200)], 200)
    np.testing.assert_array_equal(same, plain(7, 30, 200))


@pytest.mark.parametrize("frames", [2, 3, 10])
def test_an_animation_goes_there_and_back_and_rests_at_both_ends(frames: int) -> None:
    levels = [20 * index for index in range(frames)]
    animation = Image.open(io.BytesIO(to_gif([sheet([[plain(level)]]) for level in levels])))
    assert animation.info["loop"] == 0
    seen, durations = [], []
    for frame in ImageSequence.Iterator(animation):
        seen.append(int(pixels_of(frame)[GAP + 5, GAP + 5, 0]))
        durations.append(frame.info["duration"])
    assert seen == [*levels, *levels[-2:0:-1]]
    assert durations == [REST_MS if level in (0, levels[-1]) else FRAME_MS for level in seen]


def test_an_animation_keeps_the_colours_of_photographs(astronaut: Pixels) -> None:
    frames = [sheet([[astronaut[:128, 200:328]]]), sheet([[astronaut[128:256, 200:328]]])]
    animation = Image.open(io.BytesIO(to_gif(frames)))
    for frame, original in zip(ImageSequence.Iterator(animation), frames, strict=True):
        assert np.abs(pixels_of(frame) - pixels_of(original)).mean() < 3
