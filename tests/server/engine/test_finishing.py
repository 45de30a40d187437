# SPDX-License-Identifier: Apache-2.0
"""What the device gave becomes what a job asked for."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from latentwire_codec.lat.payload import decompress_latents
from latentwire_codec.runtime.posterior import Posterior
from latentwire_core.errors import NonFiniteError
from latentwire_core.formats import ImageFormat
from latentwire_core.kinds import LatentKind
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_server.engine.finishing import (
    MESSAGE_OVERHEAD,
    EncodedLatents,
    check_answer,
    compress,
    finish_decode,
    finish_encode,
)
from latentwire_server.engine.jobs import DecodeJob, EncodeJob, FileOutput
from latentwire_server.errors import RequestTooLarge
from tests.server.specs import spec_with

SPEC = spec_with(latent_space="space@1", weights_digest="ab" * 8)
CONFIG = ServerConfig(models=(ModelSource("m", "m"),), max_message_mib=1)
IMAGE = torch.arange(2 * 8 * 8 * 3, dtype=torch.uint8).reshape(2, 8, 8, 3)
PIXELS = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
LATENTS = torch.zeros(2, 4, 1, 1)
MODEL = cast(Any, SimpleNamespace(spec=SPEC, to_scaled=lambda raw, scale, shift: (raw - shift) * scale))


def moments() -> list[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    return [tuple(torch.randn(1, 4, 2, 3, generator=generator) for _ in range(2)) for _ in range(2)]


def test_the_view_of_the_posterior_that_was_asked_for_is_given() -> None:
    outputs = moments()
    mean, logvar = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    mode = finish_encode(EncodeJob(PIXELS, dtype=torch.float32), MODEL, outputs)
    assert torch.equal(mode.values, mean)
    assert mode.logvar is None
    both = finish_encode(EncodeJob(PIXELS, kind=LatentKind.MOMENTS, dtype=torch.float32), MODEL, outputs)
    assert both.logvar is not None
    assert torch.equal(both.values, mean)
    assert torch.equal(both.logvar, logvar)
    job = EncodeJob(PIXELS, kind=LatentKind.SAMPLE, seeds=(5, 6), dtype=torch.float32)
    assert torch.equal(finish_encode(job, MODEL, outputs).values, Posterior(mean, logvar).sample((5, 6)))


def test_scaled_latents_are_scaled_and_cast() -> None:
    outputs = moments()
    job = EncodeJob(PIXELS, scaled=True, scale=2.0, shift=0.5)
    expected = (torch.cat([mean for mean, _ in outputs]) - 0.5) * 2
    values = finish_encode(job, MODEL, outputs).values
    assert values.dtype == torch.float16
    assert torch.equal(values, expected.half())


def test_numbers_beyond_the_dtype_are_refused() -> None:
    outputs = [(torch.full((1, 4, 1, 1), 1e5),)]
    with pytest.raises(NonFiniteError, match=r"1e\+05, beyond torch.float16; ask for float32"):
        finish_encode(EncodeJob(PIXELS[:1]), MODEL, outputs)


def test_fitted_latents_keep_their_units() -> None:
    units = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    job = EncodeJob(b"file", dtype=torch.float32, lat_quality="high", refinement=1)
    latents = finish_encode(job, MODEL, [(torch.ones(1, 4, 1, 1), units)])
    assert latents.units == ((1.0, 2.0, 3.0, 4.0),)


def test_payloads_say_where_their_latents_come_from() -> None:
    latents = EncodedLatents(torch.cat([mean for mean, _ in moments()]), None)
    payloads = compress("lossless", latents, (15, 23), "name", SPEC, CONFIG)
    assert len(payloads) == 2
    for payload, expected in zip(payloads, latents.values.half().numpy(), strict=True):
        decoded, header = decompress_latents(payload)
        assert np.array_equal(decoded, expected)
        assert (header.model, header.latent_space, header.weights_digest) == ("name", "space@1", "ab" * 8)
        assert header.image_size == (15, 23)


def test_files_are_the_answer_as_they_are_if_they_fit_into_a_message() -> None:
    job = DecodeJob(LATENTS, FileOutput(ImageFormat.PNG))
    assert finish_decode(job, list(IMAGE.split(1)), [b"one", b"two"], CONFIG) == [b"one", b"two"]
    with pytest.raises(RequestTooLarge, match=r"would take 1048577 bytes; .* for JPEG, WebP or AVIF"):
        finish_decode(job, list(IMAGE.split(1)), [bytes(2**20), b"!"], CONFIG)


def test_tensors_are_cropped() -> None:
    images = list(IMAGE.split(1))
    tensor = finish_decode(DecodeJob(LATENTS, image_size=(7, 5)), images, [], CONFIG)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.is_contiguous()
    assert torch.equal(tensor, IMAGE[:, :7, :5])
    floats = finish_decode(DecodeJob(LATENTS, torch.float16, image_size=(7, 5)), [torch.ones(2, 3, 8, 8)], [], CONFIG)
    assert isinstance(floats, torch.Tensor)
    assert (floats.shape, floats.dtype) == ((2, 3, 7, 5), torch.float16)


def test_an_answer_may_fill_a_message_and_not_more() -> None:
    most = CONFIG.max_message_bytes - MESSAGE_OVERHEAD
    check_answer(most, "less", CONFIG)
    with pytest.raises(RequestTooLarge, match=rf"would take {most + 1} bytes; a message holds 1048576 .*for less"):
        check_answer(most + 1, "less", CONFIG)
