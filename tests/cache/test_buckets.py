# SPDX-License-Identifier: Apache-2.0
"""Size rules: golden frames from the trainers' own code, and what holds for every image."""

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire_cache.buckets import RULES, Frame, fit, size_rule
from latentwire_codec.images.geometry import pad_to_multiple

SQUARE: dict[str, Any] = {"resolution": (512, 512), "multiple": 8}
EXAMPLES = [
    ("kohya", {}),
    ("kohya", {"bucket_no_upscale": True}),
    ("kohya", {"enable_bucket": False}),
    ("kohya", {"bucket_reso_steps": 32, "max_bucket_reso": 2000, "min_bucket_reso": 300}),
    ("musubi", {}),
    ("musubi", {"bucket_no_upscale": True}),
    ("musubi", {"enable_bucket": False}),
    ("ai-toolkit", {}),
    ("ai-toolkit", {"bucket_tolerance": 16}),
    ("simpletuner", {}),
    ("simpletuner", {"resolution_type": "pixel"}),
    ("simpletuner", {"crop": True}),
    ("simpletuner", {"crop": True, "resolution_type": "pixel"}),
    ("diffusers", {}),
    ("pixart", {}),
    ("pixart-square", {}),
    ("imagenet", {}),
    ("exact", {}),
]
NOT_ENLARGED = {"ai-toolkit", "exact"}
APPLY_EXIF = {"ai-toolkit", "diffusers", "exact"}

sides = st.integers(24, 3000)


@pytest.mark.parametrize(
    ("name", "options", "image", "bucket", "resized", "crop", "filter_name"),
    [
        ("kohya", {"max_bucket_reso": 2048}, (1400, 900), (1216, 832), (1294, 832), (39, 0), "area"),
        ("kohya", {"max_bucket_reso": 2048}, (500, 400), (1152, 896), (1152, 922), (0, 13), "lanczos"),
        ("kohya", {"max_bucket_reso": 2048}, (640, 320), (1408, 704), (1408, 704), (0, 0), "lanczos"),
        ("musubi", {}, (1400, 900), (1280, 816), (1280, 823), (0, 3), "area"),
        ("musubi", {"bucket_no_upscale": True}, (500, 401), (496, 400), (499, 400), (1, 0), "area"),
        ("ai-toolkit", {}, (1400, 900), (1216, 832), (1295, 832), (39, 0), "bicubic"),
        ("ai-toolkit", {}, (500, 401), (448, 448), (559, 448), (55, 0), "bicubic"),
        ("kohya", {"max_bucket_reso": 2048}, (1216, 832), (1216, 832), (1216, 832), (0, 0), "area"),
        ("kohya", {"bucket_no_upscale": True}, (3000, 2000), (1216, 832), (1248, 832), (16, 0), "area"),
        ("ai-toolkit", {}, (63, 10), (64, 64), (404, 64), (170, 0), "bicubic"),
        ("simpletuner", {}, (1000, 999), (1024, 1024), (1025, 1024), (0, 0), "linear"),
        ("simpletuner", {"crop": True}, (1400, 900), (1024, 1024), (1592, 1024), (284, 0), "linear"),
        ("simpletuner", {"resolution_type": "pixel"}, (1000, 1003), (1024, 1024), (1024, 1027), (0, 1), "linear"),
        ("imagenet", {}, (5000, 2500), (1024, 1024), (2048, 1024), (512, 0), "adm"),
        ("pixart", {}, (1400, 900), (1216, 832), (1216, 832), (0, 0), "bicubic"),
        ("imagenet", {}, (1400, 900), (1024, 1024), (1593, 1024), (284, 0), "adm"),
    ],
)
def test_an_image_gets_the_frame_that_the_trainer_gives_it(
    name: str,
    options: dict[str, Any],
    image: tuple[int, int],
    bucket: tuple[int, int],
    resized: tuple[int, int],
    crop: tuple[int, int],
    filter_name: str,
) -> None:
    frame = size_rule(name, resolution=(1024, 1024), **options).frame(image, 1)
    assert frame == Frame(image, bucket, resized, crop, filter_name, name in APPLY_EXIF)


@given(case=st.sampled_from(EXAMPLES), width=sides, height=sides, orientation=st.integers(1, 8))
def test_every_image_covers_its_bucket_or_is_refused_by_name(
    case: tuple[str, dict[str, Any]], width: int, height: int, orientation: int
) -> None:
    name, options = case
    rule = size_rule(name, **SQUARE, **options)
    try:
        frame = rule.frame((width, height), orientation)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        # One of two sizes is named: the turned one where the trainer turns the image.
        assert f"{width}x{height}" in refusal or f"{height}x{width}" in refusal
        return
    turned = name in APPLY_EXIF and orientation >= 5
    assert frame.original == ((height, width) if turned else (width, height))
    assert frame.applies_exif is (name in APPLY_EXIF)
    if name == "exact":
        assert all(0 <= frame.bucket[axis] - frame.original[axis] < 8 for axis in (0, 1))
        return
    for axis in (0, 1):
        surplus = frame.resized[axis] - frame.bucket[axis]
        assert 0 <= frame.crop[axis] <= surplus
        assert abs(frame.crop[axis] - surplus / 2) <= 0.5
    if name == "ai-toolkit":
        step = options.get("bucket_tolerance", 64)
        area = frame.bucket[0] * frame.bucket[1]
        # A side is never less than one step.
        assert area <= max(512 * 512, max(frame.bucket) * step)


@given(case=st.sampled_from(EXAMPLES), width=st.integers(40, 400), height=st.integers(40, 400))
def test_the_pixels_of_every_frame_have_the_size_of_its_bucket(
    case: tuple[str, dict[str, Any]], width: int, height: int
) -> None:
    name, options = case
    resolution = {"resolution": (256, 256), "multiple": 8}
    if options.get("min_bucket_reso"):
        options = {**options, "min_bucket_reso": 128}
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    try:
        frame = size_rule(name, **resolution, **options).frame((width, height), 1)
    except ValueError:
        return
    fitted = fit(pixels, frame)
    assert fitted.shape == (frame.bucket[1], frame.bucket[0], 3)
    assert fitted.dtype == np.uint8
    assert fitted.flags.c_contiguous


@pytest.mark.parametrize(("name", "options"), [each for each in EXAMPLES if each[0] != "exact"])
def test_an_even_colour_stays_as_it_is_through_every_filter(name: str, options: dict[str, Any]) -> None:
    for width, height in ((1300, 900), (90, 140)):
        pixels = np.full((height, width, 3), (7, 130, 251), dtype=np.uint8)
        fitted = fit(pixels, size_rule(name, **SQUARE, **options).frame((width, height), 1))
        assert (fitted == (7, 130, 251)).all()


def test_shrinking_by_area_takes_the_mean_of_whole_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    frame = size_rule("kohya", resolution=(512, 512)).frame((1024, 1024), 1)
    means = pixels.reshape(512, 2, 512, 2, 3).mean(axis=(1, 3))
    assert frame.filter == "area"
    assert np.abs(fit(pixels, frame) - means).max() <= 0.5


def test_exact_pads_as_encoding_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 19, 3), dtype=np.uint8)
    frame = size_rule("exact", multiple=8).frame((19, 5), 1)
    np.testing.assert_array_equal(fit(pixels, frame), pad_to_multiple(pixels, 8))


def test_pixels_of_another_size_than_the_plan_are_refused() -> None:
    frame = size_rule("imagenet", resolution=(64, 64)).frame((100, 80), 1)
    with pytest.raises(ValueError, match="the image is 80x100; the plan has 100x80"):
        fit(np.zeros((100, 80, 3), dtype=np.uint8), frame)


def test_a_filter_that_no_trainer_uses_is_refused() -> None:
    frame = Frame((10, 10), (5, 5), (5, 5), (0, 0), "sinc", applies_exif=False)
    with pytest.raises(ValueError, match="the filter is 'sinc'; it must be area, linear, adm, pad-N or one of lanczos"):
        fit(np.zeros((10, 10, 3), dtype=np.uint8), frame)


def test_without_opencv_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    frame = size_rule("kohya", resolution=(512, 512)).frame((1024, 1024), 1)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'latentwire\[cache\]'"):
        fit(np.zeros((1024, 1024, 3), dtype=np.uint8), frame)


def test_an_image_too_long_to_be_scaled_is_refused() -> None:
    with pytest.raises(ValueError, match="the image is 8192x1; to cover 1024x256"):
        size_rule("kohya", resolution=(512, 512)).frame((8192, 1), 1)


@pytest.mark.parametrize(
    ("name", "options", "image", "message"),
    [
        ("kohya", {"bucket_no_upscale": True}, (63, 500), "the image is 63x500; without enlarging, each side needs 64"),
        ("kohya", {"bucket_no_upscale": True}, (20000, 60), "the image is 20000x60: too long for buckets of 64 pixels"),
        (
            "musubi",
            {"bucket_no_upscale": True},
            (15, 500),
            "the image is 15x500; without enlarging, each side",
        ),
        ("simpletuner", {}, (1, 1000), "the image is 1x1000; its ratio is 0 to 2 digits"),
    ],
)
def test_an_image_that_the_trainer_cannot_use_is_refused_by_name(
    name: str, options: dict[str, Any], image: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        size_rule(name, resolution=(512, 512), **options).frame(image, 1)


def test_an_image_at_least_twice_as_large_is_halved_by_means_first() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    frame = size_rule("imagenet", resolution=(64, 64)).frame((256, 256), 1)
    means = pixels.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    # Each of the two halvings rounds twice, once for each axis.
    assert np.abs(fit(pixels, frame) - means).max() <= 2


@pytest.mark.parametrize("name", RULES)
def test_every_rule_takes_what_every_rule_is_given(name: str) -> None:
    frame = size_rule(name, resolution=(1024, 1024), multiple=8).frame((2000, 1500), 1)
    assert min(frame.bucket) >= 64


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("koya", {}, "the rule is 'koya'; it must be one of kohya, musubi"),
        ("kohya", {"steps": 64}, "kohya has no option 'steps'; it has enable_bucket, bucket_no_upscale"),
        ("imagenet", {"steps": 64}, "imagenet has no option 'steps'; it has no options"),
        ("exact", {}, "the rule exact needs multiple"),
        ("kohya", {"resolution": (2048, 2048)}, "max_bucket_reso is 1024; it must be at least"),
        ("kohya", {"resolution": (128, 512)}, "min_bucket_reso is 256; it must be at most"),
        ("kohya", {"resolution": (512, 512), "bucket_no_upscale": 1}, "bucket_no_upscale is 1; it must be true"),
        ("kohya", {"resolution": 512.5}, "resolution is 512.5; it must be"),
        ("kohya", {"resolution": (512, 512), "bucket_reso_steps": 0}, "must be at least 1"),
        ("musubi", {"resolution": (16, 16)}, "musubi-tuner needs 32x32"),
        ("ai-toolkit", {"resolution": (512, 768)}, "ai-toolkit takes one number as its resolution, not 512x768"),
        ("ai-toolkit", {"resolution": (512, 512), "bucket_tolerance": 0}, "must be at least 1"),
        ("pixart", {"resolution": (640, 640)}, "the resolution is 640; PixArt has tables of 256, 512"),
        ("pixart-square", {"resolution": (0, 0)}, "must be at least 1"),
        ("imagenet", {"resolution": (0, 0)}, "must be at least 1"),
        ("diffusers", {"resolution": (512, 512), "divisibility": 0}, "must be at least 1"),
        ("simpletuner", {"resolution": (512, 512), "resolution_type": "area"}, "must be one of pixel, pixel_area"),
        ("simpletuner", {"resolution": (512, 512), "resolution_type": 1}, "resolution_type is 1; it must be a word"),
        ("simpletuner", {"resolution": (512, 512), "aspect_bucket_alignment": 0}, "must be at least 1"),
    ],
)
def test_a_wrong_option_is_refused_by_name(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        size_rule(name, **options)
