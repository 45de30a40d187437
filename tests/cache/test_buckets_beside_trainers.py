# SPDX-License-Identifier: Apache-2.0
"""Size rules beside the trainers' own code; see `originals`."""

import io
import math
import random
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from diffusers.training_utils import find_nearest_bucket, generate_aspect_ratio_buckets
from PIL import Image

from latentwire_cache.buckets import Frame, fit, size_rule
from latentwire_cache.buckets.pixart import RESOLUTIONS, table
from tests.cache.originals import checkout, definitions, slow_beside_trainers

Size = tuple[int, int]


def sizes(count: int = 3000) -> Iterator[Size]:
    """Yield sizes of images: many usual ones, and some that are long, tiny or huge."""
    generator = np.random.default_rng(0)
    yield from [(512, 512), (1024, 1024), (1216, 832), (1, 1), (64, 4000), (4000, 64), (65, 63), (6000, 4000)]
    for _ in range(count):
        width, height = np.exp(generator.uniform(math.log(32), math.log(5000), 2)).astype(int).tolist()
        yield width, height


def agrees(rule: Any, theirs: Callable[[Size], tuple[Any, ...]], ours: Callable[[Frame], tuple[Any, ...]]) -> int:
    """Compare frames for all sizes; return how many were compared. What we refuse is left out."""
    compared = 0
    for size in sizes():
        try:
            frame = rule.frame(size, 1)
        except ValueError:
            continue
        assert ours(frame) == theirs(size), f"an image of {size}"
        compared += 1
    return compared


def photograph(width: int, height: int) -> Any:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


class Kohya:
    """sd-scripts' own classes and functions."""

    def __init__(self) -> None:
        folder = checkout("sd-scripts") / "library"
        logger = types.SimpleNamespace(debug=lambda *_: None, info=lambda *_: None)
        model_util = definitions(folder / "model_util.py", "make_bucket_resolutions", given={"math": math})
        utils = definitions(
            folder / "utils.py", "pil_resize", "resize_image", "get_cv2_interpolation", "get_pil_interpolation",
            given={"cv2": cv2, "np": np, "Image": Image, "logger": logger},
        )  # fmt: skip
        given = {
            "np": np, "math": math, "logger": logger, "resize_image": utils["resize_image"],
            "model_util": types.SimpleNamespace(**model_util),
        }  # fmt: skip
        space = definitions(folder / "train_util.py", "BucketManager", "trim_and_resize_if_required", given=given)
        self.manager, self.cut = space["BucketManager"], space["trim_and_resize_if_required"]


@pytest.mark.parametrize("no_upscale", [False, True])
@pytest.mark.parametrize(
    ("resolution", "low", "high", "step"),
    [
        ((512, 512), 256, 1024, 64),
        ((1024, 1024), 256, 2048, 64),
        ((768, 512), 320, 1536, 32),
        ((1024, 1024), 512, 1536, 16),
    ],
)
class TestKohya:
    pytestmark = slow_beside_trainers

    def test_frames_are_those_of_its_bucket_manager(
        self, resolution: Size, low: int, high: int, step: int, no_upscale: bool
    ) -> None:
        manager = Kohya().manager(no_upscale, resolution, low, high, step)
        manager.make_buckets()
        rule = size_rule(
            "kohya", resolution=resolution, min_bucket_reso=low, max_bucket_reso=high, bucket_reso_steps=step,
            bucket_no_upscale=no_upscale,
        )  # fmt: skip
        theirs = lambda size: tuple(manager.select_bucket(*size)[:2])  # noqa: E731
        assert agrees(rule, theirs, lambda frame: (frame.bucket, frame.resized)) > 1500

    def test_pixels_are_those_of_its_resizing(
        self, resolution: Size, low: int, high: int, step: int, no_upscale: bool
    ) -> None:
        rule = size_rule(
            "kohya", resolution=resolution, min_bucket_reso=low, max_bucket_reso=high, bucket_reso_steps=step,
            bucket_no_upscale=no_upscale,
        )  # fmt: skip
        for size in [(1400, 900), (700, 1100), (300, 310), (1024, 1024), (2048, 1536)]:
            frame, pixels = rule.frame(size, 1), photograph(*size)
            theirs, original, _ = Kohya().cut(False, pixels, frame.bucket, frame.resized)
            np.testing.assert_array_equal(fit(pixels, frame), theirs)
            assert original == frame.original


class TestMusubi:
    pytestmark = slow_beside_trainers

    def originals(self) -> tuple[Any, Any]:
        folder = checkout("musubi-tuner") / "src/musubi_tuner/dataset"
        media = definitions(
            folder / "media_utils.py",
            "divisible_by",
            "resize_image_to_bucket",
            given={"cv2": cv2, "np": np, "Image": Image},
        )
        names = definitions(folder / "architectures.py", *_constants(folder / "architectures.py"), given={})
        given = {"math": math, "np": np, "divisible_by": media["divisible_by"], **names}
        return definitions(folder / "bucket.py", "BucketSelector", given=given)["BucketSelector"], media[
            "resize_image_to_bucket"
        ]

    @pytest.mark.parametrize("resolution", [(512, 512), (1024, 1024), (960, 544), (1328, 1328)])
    @pytest.mark.parametrize(("enabled", "no_upscale"), [(True, False), (True, True), (False, False)])
    def test_buckets_are_those_of_its_selector(self, resolution: Size, enabled: bool, no_upscale: bool) -> None:
        selector = self.originals()[0](resolution, enabled, no_upscale, "zi")
        rule = size_rule("musubi", resolution=resolution, enable_bucket=enabled, bucket_no_upscale=no_upscale)
        theirs = lambda size: (tuple(selector.get_bucket_resolution(size)),)  # noqa: E731
        assert agrees(rule, theirs, lambda frame: (frame.bucket,)) > 2500

    @pytest.mark.parametrize("no_upscale", [False, True])
    def test_pixels_are_those_of_its_resizing(self, no_upscale: bool) -> None:
        resize = self.originals()[1]
        rule = size_rule("musubi", resolution=(1024, 1024), bucket_no_upscale=no_upscale)
        for size in [(1400, 900), (700, 1100), (300, 310), (1024, 1024), (2048, 1536), (501, 499)]:
            frame, pixels = rule.frame(size, 1), photograph(*size)
            np.testing.assert_array_equal(fit(pixels, frame), resize(pixels, frame.bucket))
            np.testing.assert_array_equal(fit(pixels, frame), resize(Image.fromarray(pixels), frame.bucket))


def _constants(file: Any) -> list[str]:
    return [line.split(" = ")[0] for line in file.read_text().splitlines() if line.startswith("ARCHITECTURE_")]


class TestAiToolkit:
    pytestmark = slow_beside_trainers

    @pytest.mark.parametrize(("side", "tolerance"), [(512, 64), (1024, 64), (768, 32), (1024, 8)])
    def test_frames_are_those_of_its_bucket_setup(self, side: int, tolerance: int) -> None:
        folder = checkout("ai-toolkit") / "toolkit"
        buckets = definitions(folder / "buckets.py", "get_bucket_for_image_size", given={"math": math})
        bucket_class = definitions(folder / "dataloader_mixins.py", "Bucket", given={})["Bucket"]
        mixin = definitions(
            folder / "dataloader_mixins.py", "BucketsMixin",
            given={"math": math, "random": random, "Bucket": bucket_class, "print_acc": print, **buckets},
        )["BucketsMixin"]  # fmt: skip
        config = types.SimpleNamespace(
            resolution=side, bucket_tolerance=tolerance, scale=1, square_crop=False, random_crop=False
        )

        def theirs(size: Size) -> tuple[Any, ...]:
            item = types.SimpleNamespace(width=size[0], height=size[1], dataset_config=config)
            dataset = mixin.__new__(mixin)
            dataset.__dict__.update(
                file_list=[item], dataset_config=config, epoch_num=0, is_audio_model=False, is_video=False,
                batch_size=1, batch_indices=[],
            )  # fmt: skip
            dataset.setup_buckets(quiet=True)
            return (
                (item.crop_width, item.crop_height), (item.scale_to_width, item.scale_to_height),
                (item.crop_x, item.crop_y),
            )  # fmt: skip

        rule = size_rule("ai-toolkit", resolution=(side, side), bucket_tolerance=tolerance)
        assert agrees(rule, theirs, lambda frame: (frame.bucket, frame.resized, frame.crop)) > 2500


class TestSimpleTuner:
    pytestmark = slow_beside_trainers

    @pytest.mark.parametrize("crop", [False, True])
    @pytest.mark.parametrize(
        ("kind", "side", "step"),
        [
            ("pixel", 512, 64),
            ("pixel", 1024, 64),
            ("pixel_area", 512, 64),
            ("pixel_area", 1024, 64),
            ("pixel_area", 768, 8),
        ],
    )
    def test_frames_are_those_of_its_training_sample(self, kind: str, side: int, step: int, crop: bool) -> None:
        folder = checkout("SimpleTuner") / "simpletuner/helpers"
        logger = types.SimpleNamespace(debug=lambda *_: None)
        # The sizes that it has met are forgotten for each image.
        tracker = types.SimpleNamespace(
            get_args=lambda: types.SimpleNamespace(aspect_bucket_alignment=step, aspect_bucket_rounding=2),
            get_resolution_by_aspect=lambda **_: None,
            set_resolution_by_aspect=lambda **_: None,
            get_model=lambda: None,
        )
        from math import sqrt
        from numbers import Real

        image = definitions(
            folder / "multiaspect/image.py", "MultiaspectImage", "resize_helpers",
            given={"StateTracker": tracker, "logger": logger, "np": np, "Image": Image, "sqrt": sqrt, "Real": Real},
        )  # fmt: skip
        sample_class = definitions(
            folder / "image_manipulation/training_sample.py", "TrainingSample",
            given={**image, "StateTracker": tracker, "logger": logger, "np": np, "Image": Image, "sqrt": sqrt},
        )["TrainingSample"]  # fmt: skip

        def theirs(size: Size) -> tuple[Any, ...]:
            sample = sample_class.__new__(sample_class)
            area = kind == "pixel_area"
            sample.__dict__.update(
                model=None, original_size=size, crop_enabled=crop, crop_aspect="square", valid_metadata=False,
                resolution=side * side / 1000**2 if area else side, resolution_type="area" if area else "pixel",
            )  # fmt: skip
            sample.target_size_calculator = image["resize_helpers"][sample.resolution_type]
            sample._set_resolution()
            target, intermediary, _ = sample.calculate_target_size()
            return tuple(target), tuple(intermediary)

        rule = size_rule(
            "simpletuner", resolution=(side, side), resolution_type=kind, crop=crop, aspect_bucket_alignment=step
        )
        assert agrees(rule, theirs, lambda frame: (frame.bucket, frame.resized)) > 2500

    @pytest.mark.parametrize("size", [(1400, 900), (300, 310), (2048, 1536)])
    def test_pixels_are_those_of_its_package(self, size: Size) -> None:
        package = pytest.importorskip("trainingsample", reason="trainingsample is not installed: NOTHING IS RUN")
        frame, pixels = size_rule("simpletuner", resolution=(1024, 1024)).frame(size, 1), photograph(*size)
        [resized] = package.batch_resize_images([pixels], [frame.resized])
        [theirs] = package.batch_center_crop_images([np.ascontiguousarray(resized)], [frame.bucket])
        np.testing.assert_array_equal(fit(pixels, frame), theirs)

    def test_its_loader_ignores_exif_and_drops_alpha(self) -> None:
        package = pytest.importorskip("trainingsample", reason="trainingsample is not installed: NOTHING IS RUN")
        file = checkout("SimpleTuner") / "simpletuner/helpers/image_manipulation/load.py"
        load = definitions(
            file, "load_image", "remove_iccp_chunk", "_trainingsample_array_to_rgb_image",
            given={"tsr": package, "np": np, "Image": Image, **vars(typing)},
        )["load_image"]  # fmt: skip
        turned = Image.Exif()
        turned[0x0112] = 6
        pixels = photograph(60, 40)
        translucent = np.dstack([pixels, np.arange(60 * 40, dtype=np.uint8).reshape(40, 60)])
        for stored, options in ((pixels, {"exif": turned}), (translucent, {})):
            buffer = io.BytesIO()
            Image.fromarray(stored).save(buffer, "PNG", **options)
            image = load(buffer.getvalue())
            np.testing.assert_array_equal(np.asarray(image), pixels)
            assert not image.getexif()
        assert not size_rule("simpletuner", resolution=(512, 512)).frame((60, 40), 6).applies_exif


class TestPixArt:
    pytestmark = slow_beside_trainers

    @pytest.mark.parametrize("resolution", RESOLUTIONS)
    def test_the_tables_are_its_own(self, resolution: int) -> None:
        folder = checkout("PixArt-sigma")
        name = f"ASPECT_RATIO_{resolution}"
        theirs = definitions(folder / "diffusion/data/datasets/utils.py", name, given={})[name]
        ours = [(ratio, [float(height), float(width)]) for ratio, (width, height) in table(resolution)]
        assert [(float(ratio), size) for ratio, size in theirs.items()] == ours
        closest = definitions(folder / "tools/extract_features.py", "get_closest_ratio", given={})["get_closest_ratio"]
        rule = size_rule("pixart", resolution=(resolution, resolution))
        judged = lambda size: (tuple(closest(size[1], size[0], theirs)[0])[::-1],)  # noqa: E731
        assert agrees(rule, judged, lambda frame: (frame.bucket,)) > 3000


class TestDiffusers:
    @pytest.mark.parametrize(("side", "step"), [(512, 16), (1024, 16), (768, 64)])
    def test_buckets_are_those_of_the_installed_library(self, side: int, step: int) -> None:
        def theirs(size: Size) -> tuple[Any, ...]:
            width, height = size
            ladder = generate_aspect_ratio_buckets(min(side, round((height * width) ** 0.5)), divisibility=step)
            height, width = ladder[find_nearest_bucket(height, width, ladder)]
            return ((width, height),)

        rule = size_rule("diffusers", resolution=(side, side), divisibility=step)
        assert agrees(rule, theirs, lambda frame: (frame.bucket,)) > 2500


class TestImageNet:
    pytestmark = slow_beside_trainers

    @pytest.mark.parametrize("side", [64, 256])
    def test_pixels_are_those_of_the_centre_crop(self, side: int) -> None:
        crop = definitions(
            checkout("fast-DiT") / "extract_features.py", "center_crop_arr", given={"np": np, "Image": Image}
        )
        rule = size_rule("imagenet", resolution=(side, side))
        for size in [(1400, 900), (700, 1100), (300, 310), (1024, 1024), (2048, 1536), (501, 499), (70, 500), (40, 50)]:
            pixels = photograph(*size)
            theirs = np.asarray(crop["center_crop_arr"](Image.fromarray(pixels), side))
            np.testing.assert_array_equal(fit(pixels, rule.frame(size, 1)), theirs)
