# SPDX-License-Identifier: Apache-2.0
"""Jobs become tensors; limits are checked before pixels are decoded."""

from typing import Any

import numpy as np
import pytest
import torch

from latentwire_codec.images import geometry
from latentwire_codec.images.files import read_image
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.images.writing import write_image
from latentwire_core.errors import ImageTooLarge, NonFiniteError, TensorError, TensorTooLarge
from latentwire_core.formats import ImageFormat
from latentwire_core.kinds import LatentKind
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_server.engine.jobs import EncodeJob, FileOutput
from latentwire_server.engine.preparing import (
    Images,
    check_encode,
    check_latents,
    check_picture,
    device_output,
    memory_of_files,
    prepare_encode,
    target_size,
)
from latentwire_server.errors import InvalidRequest, RequestTooLarge
from tests.server.specs import spec_with

SPEC = spec_with(latent_channels=4, downsample_factor=8)
CONFIG = ServerConfig(models=(ModelSource("m", "m"),), max_message_mib=1, max_side=1000, max_batch=4, max_refinement=9)


def picture(height: int, width: int, seed: int = 0) -> bytes:
    generator = np.random.default_rng(seed)
    return write_image(generator.integers(0, 256, (height, width, 3), np.uint8))


def prepare(job: EncodeJob, spec: Any = SPEC) -> Images:
    check_encode(job, CONFIG)
    pictures: list[Pixels] = []
    if not isinstance(job.image, torch.Tensor):
        files = (job.image,) if isinstance(job.image, bytes) else job.image
        target = target_size(job, spec)
        for file in files:
            picture = read_image(file)
            memory_of_files(job, picture.shape[:2], target, CONFIG)
            pictures.append(picture if target is None else geometry.resize_to_cover(picture, target[1], target[0]))
            check_picture(pictures, len(files), CONFIG)
    return prepare_encode(job, pictures, spec, CONFIG)


def test_files_become_their_padded_pixels_and_keep_their_size() -> None:
    each = [picture(15, 23, seed) for seed in (1, 2)]
    images = prepare(EncodeJob(tuple(each)))
    assert images.size == (15, 23)
    assert images.batch.shape == (2, 16, 24, 3)
    for one, file in zip(images.batch.numpy(), each, strict=True):
        assert np.array_equal(one, geometry.pad_to_multiple(read_image(file), 8))


def test_files_of_a_fixed_size_are_framed_to_it() -> None:
    spec = spec_with(fixed_size=(16, 32))
    assert prepare(EncodeJob(picture(40, 50)), spec).size == (16, 32)
    assert prepare(EncodeJob(picture(40, 50), target_size=(16, 32)), spec).size == (16, 32)
    with pytest.raises(InvalidRequest, match="target_size is 16x16; this model takes 32x16 only"):
        prepare(EncodeJob(picture(40, 50), target_size=(16, 16)), spec)


@pytest.mark.parametrize(
    ("size", "target", "files", "mib"),
    [((1, 1), None, 1, 1), ((582, 600), None, 1, 1), ((250, 400), None, 3, 1), ((9000, 9000), (8, 8), 4, 1)],
)
def test_the_pixels_of_all_files_count_framed_where_they_are_framed(
    size: tuple[int, int], target: tuple[int, int] | None, files: int, mib: int
) -> None:
    assert memory_of_files(EncodeJob((b"file",) * files), size, target, CONFIG) == mib


def test_raw_images_are_taken_as_they_are() -> None:
    batch = torch.zeros(2, 8, 16, 3, dtype=torch.uint8)
    images = prepare(EncodeJob(batch))
    assert images.batch is batch
    assert images.size == (8, 16)


@pytest.mark.parametrize(
    ("job", "error", "problem"),
    [
        (EncodeJob((picture(8, 8), picture(8, 9))), InvalidRequest, "file 1 is 9x8, file 0 8x8"),
        (EncodeJob((picture(8, 8),) * 5), TensorTooLarge, "5 images; at most 4"),
        (EncodeJob((picture(300, 400),) * 3), RequestTooLarge, "3 images of 400x300 have 360000 pixels"),
        (EncodeJob(picture(4, 4), target_size=(1, 1001)), ImageTooLarge, "--max-side"),
        (
            EncodeJob(picture(4, 4), dtype=torch.float32, lat_quality="low", refinement=10),
            InvalidRequest,
            "refinement is 10 iterations; at most 9",
        ),
        (EncodeJob(torch.zeros(1, 7, 8, 3, dtype=torch.uint8)), TensorError, "multiple of 8"),
        (EncodeJob(torch.full((1, 3, 8, 8), 2.5)), InvalidRequest, "largest magnitude is 2.5"),
        (EncodeJob(torch.full((1, 3, 8, 8), float("nan"))), NonFiniteError, "192 of the 192 numbers"),
    ],
)
def test_images_over_a_limit_or_out_of_range_are_refused(job: EncodeJob, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        prepare(job)


def test_an_answer_over_the_limit_is_refused_before_it_is_computed() -> None:
    spec = spec_with(latent_channels=64, downsample_factor=2)
    moments = EncodeJob(picture(128, 128), kind=LatentKind.MOMENTS, dtype=torch.float32)
    with pytest.raises(RequestTooLarge, match="would take 2097152 bytes"):
        prepare(moments, spec)


@pytest.mark.parametrize(("height", "fits"), [(8, False), (9, True), (16, True), (17, False)])
def test_an_image_is_padded_by_less_than_one_latent(height: int, fits: bool) -> None:
    if fits:
        assert check_latents((1, 4, 2, 3), (height, 24), SPEC, CONFIG) == (height, 24)
        return
    with pytest.raises(InvalidRequest, match=f"height is {height}; latents of this shape hold 9 to 16") as caught:
        check_latents((1, 4, 2, 3), (height, 24), SPEC, CONFIG)
    assert caught.value.field == "image_size.height"


def test_the_device_gives_pixels_for_files_and_floats_for_floats() -> None:
    assert device_output(FileOutput(ImageFormat.PNG)) == device_output(torch.uint8) == torch.uint8
    assert device_output(torch.float16) == torch.float32
