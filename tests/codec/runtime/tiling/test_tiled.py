# SPDX-License-Identifier: Apache-2.0
"""A VAE in strips is the VAE at once, whatever the size and the memory."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor

from latentwire_codec.networks.calling import CALLINGS
from latentwire_codec.networks.pipeline_vae import AutoencoderLatentVAE, AutoencoderVectorVAE
from latentwire_codec.runtime.tiling import Tiled, Tiling, convolution
from latentwire_codec.runtime.tiling import sweep as sweeps
from latentwire_codec.runtime.tiling.footprint import Footprint
from latentwire_core.errors import ImageTooLarge

HUGE = 1 << 40


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small networks take the ways of large ones."""
    monkeypatch.setattr(sweeps, "CPU_STRIP", 1 << 12)
    monkeypatch.setattr(convolution, "WINOGRAD_CHANNELS", 8)


def kl(**config: Any) -> Any:
    torch.manual_seed(7)
    widths = config.pop("block_out_channels", (8, 8, 16, 24))
    vae: Any = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=2,
        norm_num_groups=4,
        **config,
    )
    return vae.eval().requires_grad_(False)


def own() -> Any:
    torch.manual_seed(7)
    vae = AutoencoderLatentVAE(widths=(8, 12, 16), encoder_depths=(1, 2), decoder_depths=(1, 2, 1))
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return vae.eval().requires_grad_(False)


def tiled(module: Any, tiling: Tiling) -> Tiled:
    calling = CALLINGS[type(module).__name__]
    return Tiled(
        module, None, calling, tiling, Footprint.of(module, calling, torch.zeros(1, 3, 64, 64, dtype=module.dtype))
    )


def image(height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(height + width)
    return torch.rand(1, 3, height, width, dtype=dtype) * 2 - 1


def both_ways(module: Any, network: Tiled, images: Tensor) -> tuple[float, float]:
    """Return the largest differences from the class's own encode and decode."""
    posterior = module.encode(images).latent_dist
    mean, logvar = network.run("encode", images, lambda: None)
    (decoded,) = network.run("decode", posterior.mean, lambda: None)
    encoding = max((mean - posterior.mean).abs().max().item(), (logvar - posterior.logvar).abs().max().item())
    return encoding, (decoded - module.decode(posterior.mean).sample).abs().max().item()


@pytest.mark.parametrize("budget_bytes", [0, 1 << 20, HUGE])
@pytest.mark.parametrize(
    "build",
    [
        kl,
        lambda: kl(mid_block_add_attention=False),
        lambda: kl(use_quant_conv=False, use_post_quant_conv=False),
        lambda: kl(block_out_channels=(8, 12)),
        own,
    ],
    ids=["kl", "no attention", "no quant convs", "two levels", "own"],
)
def test_strips_give_what_the_whole_gives_in_float64(build: Callable[[], Any], budget_bytes: int) -> None:
    module = build().double()
    network = tiled(module, Tiling(budget_bytes=budget_bytes))
    for height, width in ((8, 8), (64, 96), (152, 40)):
        assert max(both_ways(module, network, image(height, width, torch.float64))) < 1e-11


@pytest.mark.parametrize("budget_bytes", [0, HUGE])
@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("size", [(384, 512), (200, 136)])
def test_strips_give_what_the_whole_gives_in_float32(attention: bool, budget_bytes: int, size: tuple[int, int]) -> None:
    module = kl(mid_block_add_attention=attention)
    network = tiled(module, Tiling(budget_bytes=budget_bytes))
    assert max(both_ways(module, network, image(*size))) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("size", [(768, 1024), (328, 200)])
def test_a_full_size_autoencoder_in_little_memory_gives_what_it_gives_at_once(
    attention: bool, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    widths = (128, 256, 512, 512)
    torch.manual_seed(7)
    module: Any = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        mid_block_add_attention=attention,
    )
    module.eval().requires_grad_(False)
    with torch.inference_mode():
        assert max(both_ways(module, tiled(module, Tiling(budget_bytes=0)), image(*size))) < 1e-4


def test_a_known_network_on_a_cpu_is_rewritten_unless_told() -> None:
    assert tiled(kl(), Tiling()).rewrites
    assert not tiled(kl(), Tiling(rewrites=False)).rewrites
    assert not tiled(kl().to(torch.bfloat16), Tiling()).rewrites  # its strips have the arithmetic of the class


def test_without_rewrites_a_network_with_room_is_the_class_itself_bit_for_bit() -> None:
    module = kl()
    assert both_ways(module, tiled(module, Tiling(rewrites=False)), image(64, 40)) == (0.0, 0.0)


def test_without_rewrites_and_without_room_a_known_network_is_computed_in_strips() -> None:
    module, pauses = kl(), list[int]()
    network = tiled(module, Tiling(rewrites=False, budget_bytes=1 << 20))
    images = image(256, 256)
    network.run("encode", images, lambda: pauses.append(1))
    assert len(pauses) > 10
    assert not network.approximates("encode", images.shape)
    assert max(both_ways(module, network, images)) < 1e-4


def test_each_image_of_a_batch_is_bitwise_its_own() -> None:
    network = tiled(kl(), Tiling())
    images = torch.cat([image(64, 64), -image(64, 64)])
    together, alone = network.run("encode", images, lambda: None), network.run("encode", images[1:], lambda: None)
    for batch, one in zip(together, alone, strict=True):
        assert torch.equal(batch[1:], one)


def test_a_network_with_unknown_parts_runs_as_it_is() -> None:
    module = kl(act_fn="relu")
    network = tiled(module, Tiling(budget_bytes=HUGE))
    assert both_ways(module, network, image(64, 40)) == (0.0, 0.0)


def test_a_class_that_is_not_known_in_strips_uses_its_own_tiling_and_says_so() -> None:
    module: Any = AutoencoderTiny().eval().requires_grad_(False)
    roomy, tight = tiled(module, Tiling()), tiled(module, Tiling(budget_bytes=16 << 20))
    latents = torch.rand(1, 4, 72, 24)
    assert not roomy.approximates("decode", latents.shape)
    assert tight.approximates("decode", latents.shape)
    assert not tight.approximates("decode", (1, 4, 8, 8))
    (whole,) = roomy.run("decode", latents, lambda: None)
    (tiles,) = tight.run("decode", latents, lambda: None)
    assert torch.equal(whole, module.decode(latents).sample)
    module.enable_tiling()
    assert torch.equal(tiles, module.decode(latents).sample)
    assert not torch.equal(tiles, whole)


def test_an_image_that_neither_fits_nor_can_be_tiled_is_refused_with_the_remedy() -> None:
    module: Any = AutoencoderVectorVAE(image_size=64, latent_dim=4, width=4).eval()
    network = tiled(module, Tiling(budget_bytes=1024))
    with pytest.raises(ImageTooLarge, match=r"64x64 takes about \d+ MiB.*VectorVAE cannot be tiled"):
        network.run("encode", image(64, 64), lambda: None)
