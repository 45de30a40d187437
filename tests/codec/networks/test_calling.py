# SPDX-License-Identifier: Apache-2.0
"""Every class of VAE has one face: what it answers is what diffusers answers, called directly."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    AsymmetricAutoencoderKL,
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    AutoencoderTiny,
)
from torch import Tensor

from latentwire_codec.load import load_autoencoder
from latentwire_codec.networks.calling import CALLINGS, image_channels
from latentwire_core.errors import CheckpointError, TensorError

BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
WAN = {"base_dim": 4, "z_dim": 2, "latents_mean": [0.5, -0.5], "latents_std": [2.0, 4.0]}


def asymmetric() -> Any:
    return AsymmetricAutoencoderKL(
        **BLOCKS, down_block_out_channels=(4, 8), up_block_out_channels=(6, 8), norm_num_groups=2, layers_per_up_block=2
    )


def flux2() -> Any:
    return AutoencoderKLFlux2(
        **BLOCKS, block_out_channels=(4, 8), latent_channels=3, norm_num_groups=1, layers_per_block=1
    )


def flux() -> Any:
    return AutoencoderKL(
        **BLOCKS,
        block_out_channels=(4, 8),
        latent_channels=16,
        norm_num_groups=2,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.1159,
        scaling_factor=0.3611,
    )


def tiny() -> Any:
    shape = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    return AutoencoderTiny(**shape, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))


def deep() -> Any:
    blocks = ("ResBlock", "EfficientViTBlock")
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        scaling_factor=0.41407,
    )


def qwen() -> Any:
    return AutoencoderKLQwenImage(**WAN, dim_mult=[1, 2], temperal_downsample=[True])


def wan() -> Any:
    return AutoencoderKLWan(**WAN, dim_mult=[1, 2], temperal_downsample=[True], scale_factor_spatial=2)


def wan_with_patches() -> Any:
    config = {**WAN, "dim_mult": [1, 1], "temperal_downsample": [True], "patch_size": 2, "scale_factor_spatial": 4}
    return AutoencoderKLWan(**config, in_channels=12, out_channels=12, is_residual=True)


# f, C, whether there is a logvar, and the scaling of each.
CASES = [
    (asymmetric, 2, 4, True, (0.18215,), (0.0,)),
    (flux2, 2, 3, True, None, None),
    (flux, 2, 16, True, (0.3611,), (0.1159,)),
    (tiny, 2, 4, False, (1.0,), (0.0,)),
    (deep, 2, 4, False, (0.41407,), (0.0,)),
    (qwen, 2, 2, True, (0.5, 0.25), (0.5, -0.5)),
    (wan, 2, 2, True, (0.5, 0.25), (0.5, -0.5)),
    (wan_with_patches, 4, 2, True, (0.5, 0.25), (0.5, -0.5)),
]


@torch.inference_mode()
def answers(module: Any, images: Tensor, latents: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """What diffusers gives for these, as its own documentation calls the class."""
    if isinstance(module, AutoencoderKLQwenImage | AutoencoderKLWan):
        posterior = module.encode(images[:, :, None]).latent_dist
        return posterior.mean[:, :, 0], posterior.logvar[:, :, 0], module.decode(latents[:, :, None]).sample[:, :, 0]
    decoded = module.decode(latents).sample
    if isinstance(module, AutoencoderTiny):
        return module.encode(images).latents, None, decoded
    if isinstance(module, AutoencoderDC):
        return module.encode(images).latent, None, decoded
    posterior = module.encode(images).latent_dist
    return posterior.mean, posterior.logvar, decoded


@pytest.mark.parametrize(("build", "f", "channels", "has_logvar", "scale", "shift"), CASES)
def test_a_class_answers_as_diffusers_does(
    tmp_path: Path,
    build: Callable[[], Any],
    f: int,
    channels: int,
    has_logvar: bool,
    scale: tuple[float, ...] | None,
    shift: tuple[float, ...] | None,
) -> None:
    torch.manual_seed(5)
    module = build().eval()
    module.save_pretrained(tmp_path)
    vae = load_autoencoder(str(tmp_path), device="cpu")
    spec = vae.spec
    assert (spec.downsample_factor, spec.latent_channels, spec.has_logvar) == (f, channels, has_logvar)
    assert spec.class_name == type(module).__name__
    if scale is not None:
        assert (spec.scale, spec.shift) == (scale, shift)
    images, latents = torch.rand(1, 3, 16, 24) * 2 - 1, torch.randn(1, channels, 4, 6)
    mean, logvar, decoded = answers(module, images, latents)
    posterior = vae.encode(images)
    assert posterior.mean.shape == (1, channels, 16 // f, 24 // f)
    torch.testing.assert_close(posterior.mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vae.decode(latents), decoded, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vae.to_raw(vae.to_scaled(latents)), latents, rtol=1e-5, atol=1e-5)
    if logvar is None:
        assert posterior.logvar is None
        assert torch.equal(posterior.mode(), posterior.mean)
        with pytest.raises(TensorError, match="no log-variance to sample with; ask for the mode"):
            posterior.sample([1])
    else:
        assert posterior.logvar is not None
        torch.testing.assert_close(posterior.logvar, logvar, rtol=1e-4, atol=1e-5)
        assert posterior.sample([1]).shape == mean.shape


def test_flux2_is_scaled_by_its_batch_norm(tmp_path: Path) -> None:
    module = flux2()
    module.bn.running_mean.fill_(0.5)
    module.bn.running_var.fill_(4.0)
    module.save_pretrained(tmp_path)
    spec = load_autoencoder(str(tmp_path), device="cpu").spec
    assert spec.shift == pytest.approx((0.5,) * 3)
    assert spec.scale == pytest.approx((1 / (4.0 + 1e-4) ** 0.5,) * 3)


def test_a_deep_network_is_tried_on_an_image_that_is_large_enough(tmp_path: Path) -> None:
    channels = (4,) * 8
    torch.manual_seed(5)
    module: Any = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        encoder_layers_per_block=(1,) * 8,
        decoder_layers_per_block=(1,) * 8,
        encoder_qkv_multiscales=((),) * 8,
        decoder_qkv_multiscales=((),) * 8,
    )
    module.save_pretrained(tmp_path)
    assert load_autoencoder(str(tmp_path), device="cpu").spec.downsample_factor == 128


def test_a_class_without_a_face_is_refused(tmp_path: Path) -> None:
    diffusers.VQModel(norm_num_groups=1, block_out_channels=(4,)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="names the class 'VQModel'; supported: AutoencoderLatentVAE"):
        load_autoencoder(str(tmp_path), device="cpu")


@pytest.mark.parametrize("name", [name for name in CALLINGS if hasattr(diffusers, name)])
def test_the_classes_of_diffusers_take_an_image_alone(name: str) -> None:
    encode, decode = (inspect.signature(getattr(getattr(diffusers, name), call)) for call in ("encode", "decode"))
    for signature in (encode, decode):
        needed = [p for p in signature.parameters.values() if p.default is inspect.Parameter.empty]
        assert len(needed) == 2  # self and the batch


@pytest.mark.parametrize(
    ("config", "channels"),
    [
        ({}, (3, 3)),
        ({"in_channels": 3}, (3, 3)),
        ({"in_channels": 1, "out_channels": 3}, (1, 3)),
        ({"input_channels": 4}, (4, 4)),
        ({"in_channels": 12, "out_channels": 12, "patch_size": 2}, (3, 3)),
        ({"in_channels": 3, "out_channels": 3, "patch_size": (2, 2)}, (3, 3)),
        ({"in_channels": 3, "out_channels": 3, "patch_size": None}, (3, 3)),
    ],
)
def test_the_channels_of_images_are_counted_as_each_class_counts_them(
    config: dict[str, Any], channels: tuple[int, int]
) -> None:
    assert image_channels(config) == channels
