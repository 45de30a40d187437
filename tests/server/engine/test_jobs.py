# SPDX-License-Identifier: Apache-2.0
"""Jobs check themselves, and name the attribute that is wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from latentwire_core.formats import ImageFormat
from latentwire_core.kinds import LatentKind
from latentwire_core.noise import MAX_SEED
from latentwire_server.engine.jobs import DecodeJob, EncodeJob, FileOutput, sides
from latentwire_server.errors import InvalidRequest

PIXELS = torch.zeros(2, 8, 12, 3, dtype=torch.uint8)
LATENTS = torch.zeros(2, 4, 2, 3)
SAMPLE = LatentKind.SAMPLE
FILE = b"file"


@pytest.mark.parametrize(
    ("make", "attribute", "problem"),
    [
        (lambda: EncodeJob(()), "image_file", "there are no image files; send at least one"),
        (
            lambda: EncodeJob(PIXELS.permute(0, 3, 1, 2)),
            "image_tensor.shape",
            "image tensor is uint8 (2, 3, 8, 12); uint8 is (B,H,W,3), floats are (B,3,H,W)",
        ),
        (lambda: EncodeJob(PIXELS[0]), "image_tensor.shape", "image tensor is uint8 (8, 12, 3)"),
        (lambda: EncodeJob(PIXELS.float()), "image_tensor.shape", "image tensor is float32 (2, 8, 12, 3)"),
        (lambda: EncodeJob(PIXELS.int()), "image_tensor.shape", "image tensor is int32"),
        (lambda: EncodeJob(PIXELS, target_size=(4, 4)), "target_size", "raw images are taken as they are"),
        (lambda: EncodeJob(FILE, target_size=(0, 5)), "target_size", "target_size is 5x0; each side must be >= 1"),
        (lambda: EncodeJob(FILE, target_size=(5, 0)), "target_size", "target_size is 0x5; each side must be >= 1"),
        (lambda: EncodeJob(FILE, dtype=torch.uint8), "dtype", "dtype is uint8; latents are float32"),
        (lambda: EncodeJob(FILE, kind=LatentKind.MOMENTS, scaled=True), "scaled", "moments are always raw"),
        (lambda: EncodeJob(FILE, seeds=(1,)), "seeds", "seeds are for a sample, not for mode"),
        (
            lambda: EncodeJob(FILE, kind=LatentKind.MOMENTS, seeds=(1,)),
            "seeds",
            "seeds are for a sample, not for moments",
        ),
        (lambda: EncodeJob(PIXELS, kind=SAMPLE), "seeds", "there is no seed; a sample of 2 images needs one for each"),
        (lambda: EncodeJob(PIXELS, kind=SAMPLE, seeds=(1,)), "seeds", "1 seeds for 2 images; give one for each"),
        (lambda: EncodeJob((FILE,) * 3, kind=SAMPLE, seeds=(1,)), "seeds", "1 seeds for 3 images"),
        (lambda: EncodeJob(FILE, kind=SAMPLE, seeds=(-1,)), "seeds", "seed is -1; it must be in 0..2^64-1"),
        (
            lambda: EncodeJob(FILE, kind=SAMPLE, seeds=(MAX_SEED + 1,)),
            "seeds",
            f"seed is {2**64}; it must be in 0..2^64-1",
        ),
        (lambda: EncodeJob(FILE, refinement=1), "refinement", "refinement is 1, but it is for `.lat` payloads"),
        (
            lambda: EncodeJob(FILE, dtype=torch.float32, lat_quality="lossless", refinement=30),
            "refinement",
            "refinement is 30, but lossless keeps latents as they are",
        ),
        (lambda: EncodeJob(FILE, dtype=torch.float32, lat_quality="best"), "lat_quality", "quality is 'best'"),
        *[
            (
                lambda step=step: EncodeJob(FILE, dtype=torch.float32, lat_quality=step),
                "lat_quality",
                f"step is {step}; it must be a finite number above 0",
            )
            for step in (0.0, -1.0, float("inf"), float("nan"))
        ],
        (lambda: EncodeJob(FILE, lat_quality="cache"), "lat_quality", "`.lat` payloads hold the raw mode"),
        (
            lambda: EncodeJob(FILE, dtype=torch.float32, scaled=True, lat_quality="cache"),
            "lat_quality",
            "`.lat` payloads hold the raw mode",
        ),
        (lambda: FileOutput(ImageFormat.PNG, 50), "quality", "quality is 50, but PNG is lossless"),
        (lambda: FileOutput(ImageFormat.JPEG, 0), "quality", "quality is 0; it must be in 1..100"),
        (lambda: FileOutput(ImageFormat.AVIF, 101), "quality", "quality is 101; it must be in 1..100"),
        (lambda: DecodeJob(LATENTS.to(torch.uint8)), "latents.dtype", "dtype is uint8; latents are a float tensor"),
        (lambda: DecodeJob(LATENTS, image_size=(5, 0)), "image_size", "image_size is 0x5; each side must be >= 1"),
        (lambda: DecodeJob(LATENTS, torch.int32), "output", "dtype is int32; images are uint8 or floats"),
    ],
)
def test_a_job_refuses_what_cannot_be_meant(make: Callable[[], Any], attribute: str, problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make()
    assert caught.value.field == attribute
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EncodeJob(PIXELS, kind=SAMPLE, scaled=True, seeds=(0, MAX_SEED)),
        lambda: EncodeJob(PIXELS.permute(0, 3, 1, 2).half(), kind=LatentKind.MOMENTS, dtype=torch.bfloat16),
        lambda: EncodeJob(FILE, target_size=(1, 1)),
        lambda: EncodeJob((FILE, FILE), dtype=torch.float32, lat_quality="low", refinement=3),
        lambda: EncodeJob(FILE, dtype=torch.float32, lat_quality=1e-9),
        lambda: EncodeJob(FILE, dtype=torch.float32, lat_quality="lossless"),
        lambda: DecodeJob(LATENTS.bfloat16(), FileOutput(ImageFormat.PNG), image_size=(1, 1)),
        lambda: DecodeJob(LATENTS, FileOutput(ImageFormat.JPEG, 1)),
        lambda: DecodeJob(LATENTS, FileOutput(ImageFormat.WEBP, 100)),
        lambda: DecodeJob(LATENTS, torch.float16),
    ],
)
def test_a_job_takes_what_can_be_meant(make: Callable[[], Any]) -> None:
    assert make()


@pytest.mark.parametrize(
    ("job", "images"),
    [(EncodeJob(FILE), 1), (EncodeJob((FILE,) * 3), 3), (EncodeJob(PIXELS), 2), (DecodeJob(LATENTS), 2)],
)
def test_a_job_counts_its_images(job: EncodeJob | DecodeJob, images: int) -> None:
    assert job.images == images


def test_the_sides_of_images_are_found_in_both_layouts() -> None:
    assert sides(PIXELS) == sides(PIXELS.permute(0, 3, 1, 2).float()) == (8, 12)
