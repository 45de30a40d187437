# SPDX-License-Identifier: Apache-2.0
"""Jobs in, results out: each job gets its own result, whatever else the models compute."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from latentwire_codec.images import pixels
from latentwire_codec.images.files import read_image
from latentwire_codec.images.writing import write_image
from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_core.errors import (
    CodecError,
    ImageError,
    ImageTooLarge,
    LatentSpaceMismatch,
    NonFiniteError,
    TensorError,
    TensorTooLarge,
    UnknownModel,
)
from latentwire_core.formats import ImageFormat
from latentwire_core.kinds import LatentKind
from latentwire_core.noise import seeded_noise
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_server.engine import engine as engine_module
from latentwire_server.engine import finishing, preparing
from latentwire_server.engine.coding.process import CodingProcess
from latentwire_server.engine.engine import Engine
from latentwire_server.engine.jobs import Caller, DecodeJob, DecodeResult, EncodeJob, EncodeResult, FileOutput
from latentwire_server.engine.task import Computed, Fit, Task, compute
from latentwire_server.engine.work import Passage
from latentwire_server.errors import DeadlineExceeded, InvalidRequest, QueueFull, RequestError, RequestTooLarge
from latentwire_server.telemetry.metrics import Metrics
from tests.server.tiny_vae import save_tiny
from tests.waiting import gate, until_async

T = TypeVar("T")

CALLER = Caller("client")


class Running:
    """An engine with one tiny model (f = 2, C = 4), and its metrics."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self.engine = engine
        self._metrics = metrics

    async def encode(self, job: EncodeJob, caller: Caller, name: str = "tiny") -> EncodeResult:
        return await encode(self.engine, job, caller, name)

    async def decode(self, job: DecodeJob, caller: Caller, name: str = "tiny") -> DecodeResult:
        return await self.engine.work.decode(name, passage(job), caller)

    @property
    def model(self) -> Autoencoder:
        residency = self.engine.models["tiny"].residency
        assert residency is not None
        assert residency.weights is not None
        return residency.weights

    def metric(self, name: str, **labels: str) -> float:
        return self._metrics.registry.get_sample_value(name, labels) or 0.0


def passage(job: Any) -> Passage[Any, Any, Any]:
    return Passage("", lambda: job.images, lambda model: job, lambda result: result, {})


async def encode(engine: Engine, job: EncodeJob, caller: Caller, name: str = "tiny") -> EncodeResult:
    return await engine.work.encode(name, passage(job), caller)


@asynccontextmanager
async def running(source: str, **config: Any) -> AsyncIterator[Running]:
    metrics = Metrics()
    settings = ServerConfig(models=(ModelSource("tiny", source),), device="cpu", **config)
    engine = Engine(settings, metrics)
    await engine.start()
    try:
        yield Running(engine, metrics)
        assert metrics.registry.get_sample_value("latentwire_queue_images") == 0
    finally:
        await engine.close()


@asynccontextmanager
async def gated(source: str, **config: Any) -> AsyncIterator[tuple[Running, threading.Event]]:
    async with running(source, **config) as engine:
        with gate() as go_on:
            yield engine, go_on


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    return save_tiny(tmp_path / "tiny-vae")


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def random_pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


ENCODE = EncodeJob(random_pixels(3, 8, 12, 3), dtype=torch.float32)
DECODE = DecodeJob(noise(3, 4, 4, 6), torch.float32)


def png(height: int, width: int) -> bytes:
    return write_image(random_pixels(height, width, 3).numpy())


# What a job gets


@pytest.mark.parametrize("image", [random_pixels(3, 8, 12, 3), noise(3, 3, 8, 12).tanh()], ids=["uint8", "float"])
async def test_encoding_a_batch_is_encoding_each_image_bit_by_bit(tiny: str, image: Tensor) -> None:
    job = replace(ENCODE, kind=LatentKind.MOMENTS, image=image)
    async with running(tiny) as engine:
        batch = await engine.encode(job, CALLER)
        singles = [await engine.encode(replace(job, image=one), CALLER) for one in image.split(1)]
    assert batch.values.shape == (3, 4, 4, 6)
    assert torch.equal(batch.values, torch.cat([single.values for single in singles]))
    assert batch.logvar is not None
    assert torch.equal(batch.logvar, torch.cat([s.logvar for s in singles if s.logvar is not None]))


@pytest.mark.parametrize("output", [torch.uint8, torch.float32, torch.float16, torch.bfloat16], ids=str)
async def test_decoding_a_batch_is_decoding_each_latent_bit_by_bit(tiny: str, output: torch.dtype) -> None:
    job = replace(DECODE, output=output)
    async with running(tiny) as engine:
        batch = (await engine.decode(job, CALLER)).images
        results = [await engine.decode(replace(job, latents=one), CALLER) for one in job.latents.split(1)]
    assert isinstance(batch, Tensor)
    assert batch.dtype == output
    assert batch.shape == ((3, 8, 12, 3) if output == torch.uint8 else (3, 3, 8, 12))
    assert torch.equal(batch, torch.cat([r.images for r in results if isinstance(r.images, Tensor)]))


async def test_the_results_are_the_models_own(tiny: str) -> None:
    assert isinstance(ENCODE.image, Tensor)
    async with running(tiny) as engine:
        model = engine.model
        encoded = await engine.encode(ENCODE, CALLER)
        decoded = await engine.decode(DECODE, CALLER)
    assert torch.equal(encoded.values, model.encode(pixels.to_float(ENCODE.image)).mode())
    assert isinstance(decoded.images, Tensor)
    assert torch.equal(decoded.images, model.decode(DECODE.latents))


async def test_the_bundled_model_serves_files_of_any_size() -> None:
    async with running("f8c4") as engine:
        encoded = await engine.encode(replace(ENCODE, image=png(57, 61)), CALLER)
        assert encoded.values.shape == (1, 4, 8, 8)
        assert encoded.image_size == (57, 61)
        assert encoded.latent_space == "latentwire-f8c4@3"
        job = replace(DECODE, latents=encoded.values, image_size=encoded.image_size)
        decoded = await engine.decode(replace(job, output=FileOutput(ImageFormat.PNG, None)), CALLER)
    assert isinstance(decoded.images, list)
    assert read_image(decoded.images[0]).shape == (57, 61, 3)


async def test_a_file_is_encoded_as_its_padded_pixels(tiny: str) -> None:
    file = png(7, 11)
    padded = np.pad(read_image(file), ((0, 1), (0, 1), (0, 0)), mode="reflect")
    async with running(tiny) as engine:
        of_file = await engine.encode(replace(ENCODE, image=file), CALLER)
        of_pixels = await engine.encode(replace(ENCODE, image=torch.from_numpy(padded[None])), CALLER)
    assert (of_file.image_size, of_pixels.image_size) == ((7, 11), (8, 12))
    assert torch.equal(of_file.values, of_pixels.values)


async def test_a_file_is_scaled_to_cover_the_target_size(tiny: str) -> None:
    async with running(tiny) as engine:
        encoded = await engine.encode(replace(ENCODE, image=png(20, 30), target_size=(9, 6)), CALLER)
    assert encoded.image_size == (9, 6)
    assert encoded.values.shape == (1, 4, 5, 3)


@pytest.mark.parametrize("kind", [LatentKind.MODE, LatentKind.SAMPLE])
async def test_scaled_latents_are_shifted_and_scaled_raw_ones(tiny: str, kind: LatentKind) -> None:
    job = replace(ENCODE, kind=kind, seeds=(1, 2, 3) if kind is LatentKind.SAMPLE else ())
    async with running(tiny) as engine:
        raw = await engine.encode(job, CALLER)
        scaled = await engine.encode(replace(job, scaled=True), CALLER)
    assert (raw.scaled, scaled.scaled) == (False, True)
    torch.testing.assert_close(scaled.values, (raw.values - 0.25) * 0.5, rtol=1e-6, atol=1e-6)


async def test_decoding_scaled_latents_is_decoding_the_raw_ones(tiny: str) -> None:
    async with running(tiny) as engine:
        raw = (await engine.decode(DECODE, CALLER)).images
        job = replace(DECODE, latents=(DECODE.latents - 0.25) * 0.5, scaled=True)
        scaled = (await engine.decode(job, CALLER)).images
    torch.testing.assert_close(scaled, raw, rtol=1e-4, atol=1e-4)


async def test_a_sample_is_fixed_by_its_seed_not_by_its_place(tiny: str) -> None:
    assert isinstance(ENCODE.image, Tensor)
    same = ENCODE.image[:1].expand(3, -1, -1, -1).clone()
    async with running(tiny) as engine:
        moments = await engine.encode(replace(ENCODE, image=same, kind=LatentKind.MOMENTS), CALLER)
        job = replace(ENCODE, image=same, kind=LatentKind.SAMPLE, seeds=(5, 6, 5))
        sample = await engine.encode(job, CALLER)
    assert torch.equal(sample.values[0], sample.values[2])
    assert not torch.equal(sample.values[0], sample.values[1])
    assert moments.logvar is not None
    expected = moments.values[0] + (moments.logvar[0] / 2).exp() * torch.from_numpy(seeded_noise(5, (4, 4, 6)))
    assert torch.equal(sample.values[0], expected)


async def test_decoded_images_are_cropped_to_the_size_that_the_latents_carry(tiny: str) -> None:
    async with running(tiny) as engine:
        whole = (await engine.decode(DECODE, CALLER)).images
        cropped = (await engine.decode(replace(DECODE, image_size=(7, 11)), CALLER)).images
        bytes_ = (await engine.decode(replace(DECODE, image_size=(7, 11), output=torch.uint8), CALLER)).images
    assert isinstance(whole, Tensor)
    assert isinstance(cropped, Tensor)
    assert torch.equal(cropped, whole[:, :, :7, :11])
    assert isinstance(bytes_, Tensor)
    assert torch.equal(bytes_, pixels.to_uint8(cropped))


async def test_decoded_files_hold_the_decoded_pixels(tiny: str) -> None:
    async with running(tiny) as engine:
        tensor = (await engine.decode(replace(DECODE, output=torch.uint8), CALLER)).images
        files = (await engine.decode(replace(DECODE, output=FileOutput(ImageFormat.PNG, None)), CALLER)).images
    assert isinstance(tensor, Tensor)
    assert [read_image(file).tolist() for file in files if isinstance(file, bytes)] == tensor.tolist()


async def test_a_result_tells_how_it_was_carried_out(tiny: str) -> None:
    before_ns = time.monotonic_ns()
    async with running(tiny) as engine:
        execution = (await engine.encode(replace(ENCODE, image=png(8, 8)), CALLER)).execution
        digest = engine.model.spec.weights_digest
    elapsed_ns = time.monotonic_ns() - before_ns
    assert min(execution.queue_ns, execution.compute_ns, execution.coding_ns) > 0
    assert execution.queue_ns + execution.compute_ns + execution.coding_ns < elapsed_ns
    assert (execution.batch_size, execution.float32_retry) == (1, False)
    assert (execution.model, execution.weights_digest) == ("tiny", digest)


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (replace(ENCODE, image=ENCODE.image[:1]), ["thread", "device", "thread"]),
        (replace(ENCODE, image=png(7, 11)), ["thread", "open", "read", "thread", "device", "thread"]),
        (replace(DECODE, latents=DECODE.latents[:1]), ["thread", "device", "thread"]),
        (
            replace(DECODE, latents=DECODE.latents[:1], output=FileOutput(ImageFormat.PNG)),
            ["thread", "device", "write", "thread"],
        ),
    ],
    ids=["raw image", "file", "latents", "latents to a file"],
)
async def test_a_request_takes_no_more_trips_than_it_needs(
    tiny: str, monkeypatch: pytest.MonkeyPatch, job: EncodeJob | DecodeJob, expected: list[str]
) -> None:
    trips: list[str] = []

    def counting(name: str, go: Callable[..., T]) -> Callable[..., T]:
        def counted(*given: Any) -> T:
            trips.append(name or given[1]["do"])
            return go(*given)

        return counted

    async with running(tiny) as engine:
        threads, device = engine.engine._threads._pool, engine.engine._device
        monkeypatch.setattr(threads, "submit", counting("thread", threads.submit))
        monkeypatch.setattr(device, "run", counting("device", device.run))
        monkeypatch.setattr(CodingProcess, "ask", counting("", CodingProcess.ask))
        await (engine.encode(job, CALLER) if isinstance(job, EncodeJob) else engine.decode(job, CALLER))
    assert trips == expected


async def test_jobs_are_counted(tiny: str) -> None:
    async with running(tiny) as engine:
        await engine.encode(ENCODE, CALLER)
        assert engine.metric("latentwire_batch_images_sum", operation="encode") == 3
        assert engine.metric("latentwire_coding_seconds_count", operation="encode") == 1


async def test_the_first_model_is_the_default_and_others_go_by_their_names(tiny: str) -> None:
    metrics = Metrics()
    models = (ModelSource("first", tiny), ModelSource("second", "f8c4"))
    engine = Engine(ServerConfig(models=models, device="cpu"), metrics)
    await engine.start()
    try:
        job = replace(ENCODE, image=random_pixels(1, 8, 8, 3))
        assert (engine.model_name(""), engine.model_name("second")) == ("first", "second")
        with pytest.raises(UnknownModel, match="no model 'other' is served here; there is first, second"):
            engine.model_name("other")
        assert (await encode(engine, job, CALLER, "first")).execution.model == "first"
        second = await encode(engine, job, CALLER, "second")
        assert second.execution.model == "second"
        assert second.values.shape == (1, 4, 1, 1)
    finally:
        await engine.close()


# Numbers that are not finite


def overflows_in_half(vae: Any) -> None:
    vae.decoder.conv_out.bias.data.fill_(1e5)  # beyond float16, not beyond float32


async def test_what_overflows_is_computed_again_in_float32_counted_and_flagged(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "vae", overflows_in_half)
    job = replace(DECODE, latents=noise(2, 4, 2, 2))
    async with running(source) as engine:
        exact = (await engine.decode(job, CALLER)).images
    async with running(source, dtype="float16") as engine:
        before = engine.metric("latentwire_float32_retries_total", model="tiny")  # the warm-up retried, too
        result = await engine.decode(job, CALLER)
        retries = engine.metric("latentwire_float32_retries_total", model="tiny") - before
        encoded = await engine.encode(replace(ENCODE, image=random_pixels(1, 4, 4, 3)), CALLER)
    assert result.execution.float32_retry
    assert retries == 2
    assert isinstance(result.images, Tensor)
    assert isinstance(exact, Tensor)
    assert torch.equal(result.images, exact)
    assert not encoded.execution.float32_retry


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
async def test_input_that_is_not_finite_is_refused_before_it_is_computed(tiny: str, number: float) -> None:
    latents, image = DECODE.latents.clone(), noise(1, 3, 4, 4)
    latents[1, 2, 3, 4] = image[0, 0, 0, 0] = number
    async with running(tiny) as engine:
        with pytest.raises(NonFiniteError, match="1 of the 288 numbers of the latents are NaN or infinite"):
            await engine.decode(replace(DECODE, latents=latents), CALLER)
        with pytest.raises(NonFiniteError, match="1 of the 48 numbers of the image tensor"):
            await engine.encode(replace(ENCODE, image=image), CALLER)
        assert engine.metric("latentwire_batch_images_count", operation="decode") == 0


async def test_latents_beyond_any_image_are_refused(tiny: str) -> None:
    async with running(tiny) as engine:
        with pytest.raises(NonFiniteError, match="even in float32"):
            await engine.decode(replace(DECODE, latents=torch.full((1, 4, 2, 2), 3e38)), CALLER)
        scaled = replace(DECODE, latents=torch.full((1, 4, 2, 2), 3e38), scaled=True)
        with pytest.raises(NonFiniteError):
            await engine.decode(scaled, CALLER)


async def test_an_answer_beyond_the_dtype_that_was_asked_for_is_refused(tmp_path: Path) -> None:
    def with_large_latents(vae: Any) -> None:
        vae.quant_conv.bias.data[0] = 1e5

    async with running(save_tiny(tmp_path / "vae", with_large_latents)) as engine:
        with pytest.raises(NonFiniteError, match=r"1e\+05, beyond torch.float16; ask for float32"):
            await engine.encode(replace(ENCODE, dtype=torch.float16), CALLER)
        assert (await engine.encode(ENCODE, CALLER)).values.max() > 9e4
        assert (await engine.encode(replace(ENCODE, dtype=torch.bfloat16), CALLER)).values.max() > 9e4


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
async def test_latents_that_their_scale_takes_beyond_float32_are_refused_with_it(tiny: str, dtype: torch.dtype) -> None:
    job = replace(ENCODE, dtype=dtype, scaled=True, scale=1e308, shift=0.5)
    async with running(tiny) as engine:
        with pytest.raises(NonFiniteError, match=r"the scale 1e\+308 and the shift 0\.5 are beyond float32"):
            await engine.encode(job, CALLER)


# What is refused

SMALL_LIMITS = {"max_message_mib": 1, "max_side": 1000, "max_batch": 4, "max_queue": 8}


@pytest.mark.parametrize(
    ("job", "error", "message"),
    [
        (replace(ENCODE, image=b"not an image"), ImageError, "not an image"),
        (replace(ENCODE, image=png(1, 1001)), ImageTooLarge, "--max-side"),
        (replace(ENCODE, image=random_pixels(1, 7, 8, 3)), TensorError, "8x7; each side must be a multiple of 2"),
        (replace(ENCODE, image=random_pixels(1, 2, 1002, 3)), ImageTooLarge, "--max-side"),
        (replace(ENCODE, image=noise(1, 3, 700, 700)), ImageTooLarge, "--max-message-mib"),
        (replace(ENCODE, image=random_pixels(5, 2, 2, 3)), TensorTooLarge, "--max-batch"),
        (replace(ENCODE, image=255 * noise(1, 3, 8, 8).abs()), InvalidRequest, r"uint8 in 0\.\.255"),
        (replace(ENCODE, image=random_pixels(7, 2, 2, 3)), RequestTooLarge, "--max-queue"),
        (replace(ENCODE, image=png(4, 4), target_size=(1, 1001)), ImageTooLarge, "--max-side"),
        (replace(ENCODE, image=png(4, 4), target_size=(900, 900)), ImageTooLarge, "--max-message-mib"),
        (replace(ENCODE, image=png(500, 600)), RequestTooLarge, "ask for fewer images or for float16"),
    ],
)
async def test_encode_refuses(tiny: str, job: EncodeJob, error: type[CodecError | RequestError], message: str) -> None:
    async with running(tiny, **SMALL_LIMITS) as engine:
        with pytest.raises(error, match=message) as caught:
            await engine.encode(job, CALLER)
        assert type(caught.value) is error


@pytest.mark.parametrize(
    ("job", "error", "message"),
    [
        (replace(DECODE, latents=noise(1, 3, 2, 2)), TensorError, r"\(B, 4, h, w\) is needed"),
        (replace(DECODE, latents=noise(1, 4, 1, 501)), ImageTooLarge, "--max-side"),
        (replace(DECODE, latents=noise(1, 4, 350, 350)), ImageTooLarge, "--max-message-mib"),
        (replace(DECODE, latents=noise(5, 4, 1, 1)), TensorTooLarge, "--max-batch"),
        (replace(DECODE, latents=noise(7, 4, 1, 1)), RequestTooLarge, "--max-queue"),
        (replace(DECODE, image_size=(9, 12)), InvalidRequest, "height is 9; .* hold 7 to 8 pixels"),
        (replace(DECODE, image_size=(8, 10)), InvalidRequest, "width is 10; .* hold 11 to 12 pixels"),
        (replace(DECODE, latents=noise(1, 4, 200, 200)), RequestTooLarge, "for fewer images or for uint8"),
        (
            replace(DECODE, latents=noise(3, 4, 250, 250), output=FileOutput(ImageFormat.WEBP, None)),
            RequestTooLarge,
            "3 images of 500x500 have 750000 pixels; one request may have 349525",
        ),
    ],
)
async def test_decode_refuses(tiny: str, job: DecodeJob, error: type[CodecError | RequestError], message: str) -> None:
    async with running(tiny, **SMALL_LIMITS) as engine:
        with pytest.raises(error, match=message) as caught:
            await engine.decode(job, CALLER)
        assert type(caught.value) is error


async def test_latents_of_another_space_are_refused() -> None:
    async with running("f8c4") as engine:
        with pytest.raises(LatentSpaceMismatch, match="'sd1'"):
            await engine.decode(replace(DECODE, latent_space="sd1"), CALLER)


async def test_a_passed_deadline_is_refused(tiny: str) -> None:
    late = Caller("client", deadline=time.monotonic() - 1)
    async with running(tiny) as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.encode(ENCODE, late)


# Many at once


async def test_jobs_at_once_get_their_own_results(tiny: str) -> None:
    latents = noise(12, 4, 2, 2).split(1)
    async with running(tiny) as engine:
        jobs = [replace(DECODE, latents=one) for one in latents]
        alone = [(await engine.decode(job, CALLER)).images for job in jobs]
        together = await asyncio.gather(*(engine.decode(job, Caller(f"{n % 3}")) for n, job in enumerate(jobs)))
    for result, expected in zip(together, alone, strict=True):
        assert isinstance(result.images, Tensor)
        assert isinstance(expected, Tensor)
        assert torch.equal(result.images, expected)


async def test_a_client_that_fills_its_share_of_the_queue_is_refused_and_another_is_not(tiny: str) -> None:
    async with running(tiny, max_queue=4) as engine:
        greedy = [asyncio.create_task(engine.decode(DECODE, Caller("greedy"))) for _ in range(2)]
        other = asyncio.create_task(engine.decode(replace(DECODE, latents=noise(1, 4, 1, 1)), Caller("other")))
        results = await asyncio.gather(*greedy, other, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["DecodeResult", QueueFull.__name__, "DecodeResult"]


# Two pixels more than a small image has: 1026 x 1026.
LARGE = replace(DECODE, latents=noise(1, 4, 513, 513), output=torch.uint8)
SMALL = replace(DECODE, latents=noise(1, 4, 1, 1))


class Strips:
    """Takes the place of a model's decoder: large latents take `number` strips, with a gate before each."""

    def __init__(self, model: Autoencoder, number: int = 3) -> None:
        self.story: list[str] = []
        self.gate = threading.Semaphore(0)
        self._decode = model.decode
        self._number = number

    def decode(self, latents: Tensor, *arguments: Any, pause: Callable[[], None] | None = None, **named: Any) -> Tensor:
        if latents.shape[-1] < 513:
            self.story.append("small")
            return self._decode(latents, *arguments[:2], **named)
        *_, pause = arguments
        assert pause is not None
        for strip in range(self._number):
            self.story.append(f"strip {strip}")
            self.gate.acquire()
            if strip < self._number - 1:
                pause()
        return torch.zeros(1, 1026, 1026, 3, dtype=torch.uint8)

    async def begun(self) -> None:
        await until_async(lambda: self.story)


@asynccontextmanager
async def in_strips(tiny: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Running, Strips]]:
    async with running(tiny) as engine:
        strips = Strips(engine.model)
        monkeypatch.setattr(engine.model, "decode", strips.decode)
        try:
            yield engine, strips
        finally:
            strips.gate.release(100)


async def test_a_small_job_is_answered_between_two_strips_of_a_large_one(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_strips(tiny, monkeypatch) as (engine, strips):
        before_ns = time.monotonic_ns()
        large = asyncio.create_task(engine.decode(LARGE, CALLER))
        await strips.begun()
        small = asyncio.create_task(engine.decode(SMALL, CALLER))
        await until_async(lambda: len(engine.engine._batcher))
        strips.gate.release()
        answered = (await small).execution
        assert not large.done()
        strips.gate.release(2)
        execution = (await large).execution
        elapsed_ns = time.monotonic_ns() - before_ns
    assert strips.story == ["strip 0", "small", "strip 1", "strip 2"]
    assert execution.compute_ns + answered.compute_ns < elapsed_ns
    assert execution.queue_ns >= answered.compute_ns


@pytest.mark.parametrize("ending", ["cancelled", "deadline"])
async def test_a_large_job_that_nobody_waits_for_ends_at_its_next_strip(
    tiny: str, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    async with in_strips(tiny, monkeypatch) as (engine, strips):
        caller = CALLER.within(0.5) if ending == "deadline" else CALLER
        large = asyncio.create_task(engine.decode(LARGE, caller))
        await strips.begun()
        if ending == "cancelled":
            large.cancel()
        (error,) = await asyncio.gather(large, return_exceptions=True)
        assert isinstance(error, DeadlineExceeded if ending == "deadline" else asyncio.CancelledError)
        strips.gate.release()
        await engine.decode(SMALL, CALLER)
    assert strips.story == ["strip 0", "small"]


async def test_a_clients_flood_of_encodes_delays_anothers_decode_by_one_batch(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    story: list[str] = []
    begun = threading.Event()
    async with gated(tiny) as (engine, go_on):

        def watched(task: Task, *given: Any) -> Any:
            story.append(task.operation)
            begun.set()
            go_on.wait()
            return compute(task, *given)

        monkeypatch.setattr(engine_module, "compute", watched)
        flood = asyncio.create_task(engine.encode(replace(ENCODE, image=random_pixels(40, 8, 8, 3)), Caller("flood")))
        await asyncio.to_thread(begun.wait)
        decodes = asyncio.create_task(engine.decode(DECODE, Caller("other")))
        await until_async(lambda: len(engine.engine._batcher) == 39 + 3)
        go_on.set()
        await asyncio.gather(flood, decodes)
    assert story[:8] == ["encode", "encode", "decode", "encode", "decode", "encode", "decode", "encode"]


async def test_a_batch_keeps_the_model_in_memory_though_its_job_was_cancelled(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gated(tiny) as (engine, go_on):
        residency = engine.engine.models["tiny"].residency
        assert residency is not None
        begun = threading.Event()

        def slow(*given: Any) -> Any:
            begun.set()
            go_on.wait()
            return compute(*given)

        monkeypatch.setattr(engine_module, "compute", slow)
        job = asyncio.create_task(engine.decode(replace(DECODE, latents=noise(1, 4, 1, 1)), CALLER))
        await asyncio.to_thread(begun.wait)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        assert residency.holders == 1
        go_on.set()
        await residency.idle.wait()
        assert residency.holders == 0


async def test_small_files_of_large_images_are_read_only_as_memory_is_there_for_them(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    ask = CodingProcess.ask

    async def counted(process: CodingProcess, head: dict[str, Any], *given: Any) -> Any:
        read.extend([1] * (head["do"] == "read"))
        return await ask(process, head, *given)

    monkeypatch.setattr(CodingProcess, "ask", counted)
    async with gated(tiny, max_message_mib=1) as (engine, go_on):

        def fail_late(*given: Any) -> Any:
            go_on.wait()
            raise ValueError("not computed")

        monkeypatch.setattr(engine_module, "compute", fail_late)
        # 1 MiB of pixels.
        job = replace(ENCODE, image=png(480, 640), kind=LatentKind.MODE, dtype=torch.float16)
        jobs = [asyncio.create_task(engine.encode(job, CALLER)) for _ in range(20)]
        # The first client gets three quarters of 8 MiB, and does not hold up another client.
        await until_async(lambda: len(read) >= 6)
        other = asyncio.create_task(engine.encode(job, Caller("other")))
        await until_async(lambda: len(read) >= 7)
        await asyncio.sleep(0.2)
        assert len(read) == 7
        go_on.set()
        await asyncio.gather(*jobs, other, return_exceptions=True)
        assert len(read) == 21
        assert engine.engine.work._memory.held == 0


async def test_a_cancelled_job_gives_its_places_back_and_the_next_runs(tiny: str) -> None:
    async with running(tiny) as engine:
        job = asyncio.create_task(engine.decode(DECODE, CALLER))
        await asyncio.sleep(0)
        assert engine.metric("latentwire_queue_images") == 3
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        assert job.cancelled()
        assert engine.metric("latentwire_queue_images") == 0
        await engine.decode(DECODE, CALLER)


async def test_only_models_are_loaded_and_computed_on_several_cores(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[int]] = {}

    def counting(work: Callable[..., T]) -> Callable[..., T]:
        def counted(*args: Any, **settings: Any) -> T:
            seen.setdefault(work.__name__, set()).add(torch.get_num_threads())
            return work(*args, **settings)

        return counted

    for module, name in (
        (engine_module, "load_autoencoder"),
        (engine_module, "compute"),
        (preparing, "prepare_encode"),
        (finishing, "finish_encode"),
    ):
        monkeypatch.setattr(module, name, counting(getattr(module, name)))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        async with running(tiny) as server:
            await server.encode(ENCODE, CALLER)
    finally:
        torch.set_num_threads(before)
    assert seen == {"load_autoencoder": {3}, "compute": {3}, "prepare_encode": {1}, "finish_encode": {1}}


# LatentOptimisation

# With so many iterations a refinement never ends by itself while a test lasts.
ENDLESS = 10**6
REFINED = replace(ENCODE, image=png(31, 47), lat_quality="high", refinement=ENDLESS)


@asynccontextmanager
async def refining(tiny: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Running, "asyncio.Task[Any]"]]:
    """An engine, and the endless refinement that it is at work on."""
    begun = threading.Event()
    async with running(tiny, max_refinement=ENDLESS) as engine:
        decode = engine.model.decode_with_gradients

        def watched(latents: Tensor) -> Tensor:
            begun.set()
            return decode(latents)

        monkeypatch.setattr(engine.model, "decode_with_gradients", watched)
        job = asyncio.create_task(engine.encode(REFINED, CALLER))
        await asyncio.to_thread(begun.wait)
        yield engine, job


async def test_small_jobs_are_answered_while_latents_are_refined(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with refining(tiny, monkeypatch) as (engine, job):
        decoded = await engine.decode(SMALL, Caller("other"))
        encoded = await engine.encode(ENCODE, CALLER)
        assert not job.done()
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
    async with running(tiny) as engine:
        assert torch.equal(encoded.values, (await engine.encode(ENCODE, CALLER)).values)
        alone = await engine.decode(SMALL, CALLER)
    assert isinstance(decoded.images, Tensor)
    assert isinstance(alone.images, Tensor)
    assert torch.equal(decoded.images, alone.images)


async def test_a_refinement_that_nobody_waits_for_ends(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with refining(tiny, monkeypatch) as (engine, job):
        residency = engine.engine.models["tiny"].residency
        assert residency is not None
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        await residency.idle.wait()
        assert residency.holders == 0


async def test_an_engine_that_closes_ends_the_refinement_at_work(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with refining(tiny, monkeypatch) as (engine, job):
        await engine.engine.close()
        assert not job.done()
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


async def test_the_advice_to_come_back_later_counts_a_refinement_as_the_work_it_is(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tiny, max_refinement=33) as engine:

        async def hundred_seconds(work: object) -> tuple[list[Computed], int]:
            return [Computed((torch.zeros(1), torch.ones(1)), False)], 100 * 10**9

        monkeypatch.setattr(engine.engine._device, "run", hundred_seconds)
        fit = Fit(LatentOptimisation(33), "high", (8, 12))
        task = Task("tiny", engine.model, "encode", (8, 12, 3), torch.uint8, fit)
        places = engine.engine.places
        async with places.hold(CALLER, 20):
            before_s = places.retry_after_s
            await engine.engine._run_batch(task, [torch.zeros(1)])
            after_s = places.retry_after_s
        # One encode, and 33 decodes with gradients that take three times as long: 1 s for each of the 100.
        assert after_s == pytest.approx(0.9 * before_s + 0.1 * 20 / 2)
