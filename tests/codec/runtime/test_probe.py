# SPDX-License-Identifier: Apache-2.0
"""A few images tell SD 1.x and SDXL weights apart, and where the scale is the other's there is a warning."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from latentwire_codec.load import load_autoencoder
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.posterior import Posterior
from latentwire_codec.runtime.probe import leaves, mixed_up, scaled_spread, warn_of_mix_up
from tests.conftest import Pixels

SD = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
}
SD1, SDXL = 0.18215, 0.13025


@pytest.fixture(scope="module")
def f8c4() -> Autoencoder:
    return load_autoencoder("f8c4", device="cpu")


class Posing(Autoencoder):
    """A VAE whose raw latents have a given spread, and which looks like Stable Diffusion's."""

    def __init__(self, spread: float, scale: float, **config: Any) -> None:
        spec = load_autoencoder("f8c4", device="cpu").spec
        self.spec = replace(spec, class_name="AutoencoderKL", config={**SD, **config}, scale=(scale,), shift=(0.0,))
        self.spread = spread
        self.encoded = 0

    def encode(
        self,
        images: Tensor,
        on_retry: Callable[[list[int]], None] | None = None,
        pause: Callable[[], None] | None = None,
    ) -> Posterior:
        self.encoded += len(images)
        return Posterior(torch.randn(len(images), 4, 64, 64) * self.spread, None)


def test_the_images_are_the_same_each_time_and_in_range() -> None:
    images = leaves()
    assert images.shape == (4, 3, 96, 96)
    assert torch.equal(images, leaves())
    assert images.abs().max() <= 1


def test_the_images_spread_latents_as_photographs_do(f8c4: Autoencoder, astronaut: Pixels) -> None:
    photograph = torch.from_numpy(astronaut.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    ours, theirs = ((scaled_spread(f8c4, images) / float(images.std())) for images in (leaves(), photograph))
    assert 0.8 < scaled_spread(f8c4, leaves()) < 1.25
    assert ours == pytest.approx(theirs, rel=0.3)


@pytest.mark.parametrize(
    ("raw", "scale", "rather"),
    [
        (1 / SD1, SD1, ""),
        (1 / SDXL, SDXL, ""),
        (1 / SD1, SDXL, "sd1"),
        (1 / SDXL, SD1, "sdxl"),
        (0.9 / SD1, SD1, ""),
        (1.1 / SDXL, SDXL, ""),
        (1.0, 0.5, ""),  # a scale of its own is nobody's mix-up
        (0.01, SDXL, ""),  # nor are weights that are no VAE's at all
    ],
)
def test_a_mix_up_is_told_by_the_spread(raw: float, scale: float, rather: str) -> None:
    assert mixed_up(raw * scale, (scale,)) == rather


def test_a_mix_up_is_warned_of_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "latentwire"):
        warn_of_mix_up("some.safetensors", Posing(1 / SDXL, SD1))
    (message,) = caplog.messages
    assert message.startswith("some.safetensors: its latents, scaled by 0.18215, have the standard deviation 1.")
    assert float(message.split("deviation ")[1].split()[0]) == pytest.approx(SD1 / SDXL, abs=0.03)
    assert message.endswith("load it with scale 0.13025 and latent_space sdxl")


@pytest.mark.parametrize("scale", [SD1, SDXL])
def test_what_fits_is_not_warned_of(caplog: pytest.LogCaptureFixture, scale: float) -> None:
    with caplog.at_level(logging.WARNING, "latentwire"):
        warn_of_mix_up("some.safetensors", Posing(1 / scale, scale))
    assert not caplog.messages


def test_another_network_is_not_tried() -> None:
    other = Posing(1 / SDXL, SD1, latent_channels=16)
    warn_of_mix_up("some.safetensors", other)
    assert other.encoded == 0
