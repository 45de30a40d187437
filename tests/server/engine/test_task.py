# SPDX-License-Identifier: Apache-2.0
"""The inputs of a batch become the model's output for each, as if each were alone."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentwire_codec.images import pixels
from latentwire_codec.lat.images import optimise_latents
from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.load import load_autoencoder
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_core.errors import NonFiniteError
from latentwire_server.engine.task import Computed, Fit, Task, compute
from tests.server.tiny_vae import save_tiny


@pytest.fixture
def model(tmp_path: Path) -> Autoencoder:
    return load_autoencoder(save_tiny(tmp_path / "vae"), device="cpu")


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def random_pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def never() -> None:
    """Take the place of a pause."""


def test_in_a_batch_an_image_that_is_not_finite_fails_alone(model: Autoencoder) -> None:
    good, bad = noise(2, 4, 2, 2).split(1), torch.full((1, 4, 2, 2), 3e38)
    run = partial(compute, Task("tiny", model, "decode", (4, 2, 2), torch.float32), pause=never)
    first, failed, last = run([good[0], bad, good[1]])
    assert isinstance(failed, NonFiniteError)
    for result, alone in zip((first, last), [run([one])[0] for one in good], strict=True):
        assert isinstance(result, Computed)
        assert isinstance(alone, Computed)
        assert torch.equal(result.tensors[0], alone.tensors[0])
        assert not result.float32_retry


def test_in_a_batch_only_the_image_that_was_computed_again_is_flagged(tmp_path: Path) -> None:
    def overflows_for_large_latents(vae: Any) -> None:
        vae.post_quant_conv.weight.data.mul_(1000)

    source = save_tiny(tmp_path / "vae", overflows_for_large_latents)
    model = load_autoencoder(source, device="cpu", dtype="float16")
    task = Task("tiny", model, "decode", (4, 2, 2), torch.float32)
    latents = noise(1, 4, 2, 2)
    results = compute(task, [latents, 1000 * latents, latents], never)
    flags = [result.float32_retry for result in results if isinstance(result, Computed)]
    assert flags == [False, True, False]


def test_in_a_batch_each_image_is_refined_as_it_is_alone(model: Autoencoder) -> None:
    images = list(random_pixels(3, 8, 12, 3).split(1))
    fit = Fit(LatentOptimisation(3), "high", (7, 11))
    run = partial(compute, Task("tiny", model, "encode", (8, 12, 3), torch.uint8, fit), pause=never)
    for result, other in zip(run(images), [run([one])[0] for one in images], strict=True):
        assert isinstance(result, Computed)
        assert isinstance(other, Computed)
        latents, units = result.tensors
        assert (latents.shape, units.shape, units.dtype) == ((1, 4, 4, 6), (1, 4), torch.float64)
        assert torch.equal(latents, other.tensors[0])
        assert torch.equal(units, other.tensors[1])


def test_the_padding_of_an_image_is_not_fitted(model: Autoencoder) -> None:
    image, fit = random_pixels(1, 8, 12, 3), Fit(LatentOptimisation(3), "high", (7, 11))
    latents = model.encode(pixels.to_float(image)).mode()
    (result,) = compute(Task("tiny", model, "encode", (8, 12, 3), torch.uint8, fit), [image], never)
    cropped = pixels.to_float(image[:, :7, :11])
    expected, units = optimise_latents(latents, cropped, "high", fit.refinement, model=model)
    assert isinstance(result, Computed)
    assert torch.equal(result.tensors[0][0], torch.from_numpy(expected))
    assert tuple(result.tensors[1][0].tolist()) == units
