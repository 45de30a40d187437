# SPDX-License-Identifier: Apache-2.0
"""`.lat` payloads become a decode job, and are refused by their headers before latents take memory."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from latentwire_codec.lat.payload import Provenance, compress_latents
from latentwire_core.errors import BitstreamError, LatentSpaceMismatch
from latentwire_core.formats import ImageFormat
from latentwire_proto.v1 import latent_codec_pb2 as pb
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_server.doors.grpc import payloads
from latentwire_server.doors.grpc.convert import count_images
from latentwire_server.engine.jobs import DecodeJob, FileOutput
from latentwire_server.errors import InvalidRequest, RequestTooLarge
from tests.server.specs import spec_with

CONFIG = ServerConfig(models=(ModelSource("many", "many"),), max_message_mib=1)


def model_of(channels: int, f: int, check: Any = lambda *told: None) -> Any:
    return cast(
        Any, SimpleNamespace(spec=spec_with(latent_channels=channels, downsample_factor=f), check_latent_space=check)
    )


def payload(*shape: int, **origin: Any) -> bytes:
    return compress_latents(np.zeros(shape, np.float32), provenance=Provenance(**origin))


def job_of(*each: bytes, model: Any = None, **request: Any) -> DecodeJob:
    message = pb.DecodeRequest(lat=pb.LatPayloads(payloads=each), **request)
    return payloads.to_decode_job(message, model or model_of(4, 8), CONFIG)


def test_payloads_become_raw_float32_latents_with_what_they_say_of_themselves() -> None:
    one = payload(4, 2, 3, latent_space="space@1", weights_digest="ab" * 8, image_size=(15, 23))
    files = pb.ImageFileOutput(format=pb.IMAGE_FORMAT_WEBP, quality=7)
    job = job_of(one, one, image_files=files)
    assert (job.latents.shape, job.latents.dtype, job.scaled) == ((2, 4, 2, 3), torch.float32, False)
    assert (job.latent_space, job.weights_digest, job.image_size) == ("space@1", "ab" * 8, (15, 23))
    assert job.output == FileOutput(ImageFormat.WEBP, 7)


def test_a_payload_without_a_size_is_not_cropped() -> None:
    assert job_of(payload(4, 2, 3)).image_size is None


def test_no_payloads_are_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        job_of()
    assert caught.value.field == "lat.payloads"


def test_payloads_of_two_shapes_or_sizes_are_refused() -> None:
    for other in (payload(4, 3, 2), payload(4, 2, 3, image_size=(16, 24))):
        with pytest.raises(InvalidRequest, match="payload 1 has latents of the shape") as caught:
            job_of(payload(4, 2, 3), other)
        assert caught.value.field == "lat.payloads"


def test_each_payload_is_checked_against_the_model_by_its_maker_s_name() -> None:
    seen: list[str] = []

    def check(header: Any, made_by: str) -> None:
        seen.append(made_by)
        if made_by == "second":
            raise LatentSpaceMismatch("another space")

    with pytest.raises(LatentSpaceMismatch):
        job_of(payload(4, 2, 3, model="first"), payload(4, 2, 3, model="second"), model=model_of(4, 8, check))
    assert seen == ["first", "second"]


def test_what_is_no_payload_is_refused() -> None:
    with pytest.raises(BitstreamError):
        job_of(b"not a payload")


def test_payloads_of_few_pixels_and_many_latents_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(RequestTooLarge, match="hold 691200 latents; one request may have 524288"):
        job_of(*[payload(64, 60, 60)] * 3, model=model_of(64, 2))


@pytest.mark.parametrize(("count", "images"), [(0, 1), (1, 1), (3, 3)])
def test_payloads_are_counted_without_being_read(count: int, images: int) -> None:
    assert count_images(pb.DecodeRequest(lat=pb.LatPayloads(payloads=[b""] * count))) == images
