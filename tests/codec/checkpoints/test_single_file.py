# SPDX-License-Identifier: Apache-2.0
"""A file made from a known VAE, in each layout that is about, loads back to identical tensors and outputs."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from safetensors.torch import save_file
from torch import Tensor

from latentwire_codec.checkpoints import ldm
from latentwire_codec.checkpoints.checkpoint import load_checkpoint
from latentwire_codec.checkpoints.weights_file import WeightsFile
from latentwire_codec.load import load_autoencoder
from tests.codec.checkpoints.layouts import check, refused, to_ldm

WIDTHS = (32, 64)
UNET = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
SIZE = "model.diffusion_model.label_emb.0.0.weight"


def build_kl(widths: tuple[int, ...] = WIDTHS, **config: Any) -> Any:
    """An AutoencoderKL as narrow as 32 groups let it be, with weights that no initialisation repeats."""
    torch.manual_seed(3)
    module: Any = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        **{"layers_per_block": 2, **config},
    )
    return module.eval()


# AutoencoderKL


@pytest.fixture(scope="module")
def kl() -> Any:
    return build_kl()


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
@pytest.mark.parametrize("suffix", [".safetensors", ".sft", ".ckpt", ".pt", ".pth"])
def test_a_file_in_ldms_layout_loads_back_exactly(kl: Any, tmp_path: Path, prefix: str, suffix: str) -> None:
    tensors = {prefix + name: tensor for name, tensor in to_ldm(kl.state_dict(), 2).items()}
    path = tmp_path / f"any{suffix}"
    if suffix in {".safetensors", ".sft"}:
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors, "epoch": 3} if suffix == ".ckpt" else tensors, path)
    checkpoint = load_checkpoint(str(path), scale=0.5)
    check(checkpoint, kl)
    assert checkpoint.class_name == "AutoencoderKL"
    assert checkpoint.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_ldms_names_are_converted_as_diffusers_converts_them(kl: Any) -> None:
    tensors = to_ldm(kl.state_dict(), 2)
    theirs = convert_ldm_vae_checkpoint(dict(tensors), kl.config)
    assert sorted(ldm.diffusers_names(tensors).values()) == sorted(theirs)
    for name, new in ldm.diffusers_names(tensors).items():
        assert torch.equal(tensors[name].flatten(), theirs[new].flatten()), name


@pytest.mark.parametrize(
    ("widths", "config"),
    [
        ((32, 64, 64, 64), {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}),
        ((32, 64, 96), {"latent_channels": 4}),
        ((32, 32), {"layers_per_block": 1, "mid_block_add_attention": False}),
        ((32,), {"latent_channels": 8}),
    ],
    ids=["flux and sd3", "f4", "no attention", "f1"],
)
def test_the_network_follows_from_the_shapes(tmp_path: Path, widths: tuple[int, ...], config: dict[str, Any]) -> None:
    module = build_kl(widths, **config)
    for name, tensors in (("ldm", to_ldm(module.state_dict(), len(widths))), ("diffusers", module.state_dict())):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        checkpoint = load_checkpoint(str(tmp_path / f"{name}.safetensors"), scale=1, shift=0)
        check(checkpoint, module)
        declared = {"block_out_channels": list(widths), **config}
        assert {key: checkpoint.config[key] for key in declared} == declared


def test_one_vae_has_one_digest_in_every_layout(kl: Any, tmp_path: Path) -> None:
    kl.save_pretrained(tmp_path / "folder")
    save_file(to_ldm(kl.state_dict(), 2), tmp_path / "ldm.safetensors")
    save_file(
        {f"vae.{name}": t for name, t in kl.state_dict().items()} | {UNET: torch.zeros(2, 3)}, tmp_path / "all.sft"
    )
    sources = [load_checkpoint(str(tmp_path / name), scale=1) for name in ("folder", "ldm.safetensors", "all.sft")]
    assert len({source.weights_digest for source in sources}) == 1
    assert len({source.file_sha256 for source in sources}) == 3


def test_half_precision_loads_in_float32_and_has_a_digest_of_its_own(kl: Any, tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in to_ldm(kl.state_dict(), 2).items()}
    save_file(halves, tmp_path / "half.safetensors")
    save_file(to_ldm(kl.state_dict(), 2), tmp_path / "whole.safetensors")
    half, whole = (load_checkpoint(str(tmp_path / f"{name}.safetensors"), scale=1) for name in ("half", "whole"))
    assert {parameter.dtype for parameter in half.module.parameters()} == {torch.float32}
    assert half.weights_digest != whole.weights_digest


def test_what_training_leaves_in_a_file_is_ignored(kl: Any, tmp_path: Path) -> None:
    extras = {"loss.logvar": torch.zeros(1), "loss.discriminator.main.0.bias": torch.zeros(4)}
    extras |= {"model_ema.decay": torch.zeros(1), "model_ema.num_updates": torch.tensor(3)}
    save_file(to_ldm(kl.state_dict(), 2) | extras, tmp_path / "any.safetensors")
    check(load_checkpoint(str(tmp_path / "any.safetensors"), scale=1), kl)


@pytest.mark.parametrize(
    "prefix", ["model.", "autoencoder.module.", "_orig_mod.", "module.first_stage_model._orig_mod."]
)
def test_a_vae_below_any_prefix_is_found(kl: Any, tmp_path: Path, prefix: str) -> None:
    tensors = {prefix + name: tensor for name, tensor in to_ldm(kl.state_dict(), 2).items()}
    save_file(tensors, tmp_path / "any.safetensors")
    check(load_checkpoint(str(tmp_path / "any.safetensors"), scale=1), kl)


def test_two_vaes_in_one_file_are_named_and_none_is_guessed(kl: Any, tmp_path: Path) -> None:
    tensors = {
        f"{prefix}.{name}": tensor.clone() for prefix in ("ema", "model") for name, tensor in kl.state_dict().items()
    }
    save_file(tensors, tmp_path / "any.safetensors")
    assert "holds a VAE below each of ema., model." in refused(tmp_path / "any.safetensors")


def test_a_compiled_vae_saved_by_diffusers_and_a_byte_order_mark_are_read(kl: Any, tmp_path: Path) -> None:
    kl.save_pretrained(tmp_path / "vae")
    weights = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({f"_orig_mod.{name}": tensor for name, tensor in kl.state_dict().items()}, weights)
    config = tmp_path / "vae" / "config.json"
    config.write_text(config.read_text(), "utf-8-sig")
    check(load_checkpoint(str(tmp_path / "vae"), scale=1), kl)


# Full checkpoints


def full(kl: Any, beside: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = {
        f"first_stage_model.{name}": tensor
        for name, tensor in to_ldm(kl.state_dict(), len(kl.config.block_out_channels)).items()
    }
    return tensors | dict(beside)


def test_of_a_full_checkpoint_only_the_vae_is_read(kl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = {UNET: torch.zeros(320, 768), "cond_stage_model.x": torch.zeros(2), "loss.y": torch.zeros(2)}
    save_file(full(kl, beside), tmp_path / "sd.safetensors")
    asked: list[str] = []
    read = WeightsFile.read

    def watch(self: WeightsFile, names: Any) -> dict[str, Tensor]:
        asked.extend(names)
        return read(self, asked)

    monkeypatch.setattr(WeightsFile, "read", watch)
    check(load_checkpoint(str(tmp_path / "sd.safetensors"), scale=1), kl)
    assert asked
    assert all(name.startswith("first_stage_model.") for name in asked)


@pytest.mark.parametrize(
    ("beside", "space", "scale"),
    [
        ({UNET: torch.zeros(2, 768)}, "sd1", 0.18215),
        ({UNET: torch.zeros(2, 1024)}, "sd1", 0.18215),
        ({UNET: torch.zeros(2, 2048), SIZE: torch.zeros(2, 2)}, "sdxl", 0.13025),
        ({UNET: torch.zeros(2, 1280), SIZE: torch.zeros(2, 2)}, "sdxl", 0.13025),
    ],
    ids=["sd1", "sd2", "sdxl", "refiner"],
)
def test_the_rest_of_a_full_checkpoint_tells_whose_vae_it_is(
    tmp_path: Path, beside: dict[str, Tensor], space: str, scale: float
) -> None:
    module = build_kl((32,) * 4, layers_per_block=1)
    save_file(full(module, beside), tmp_path / "sd.safetensors")
    checkpoint = load_checkpoint(str(tmp_path / "sd.safetensors"))
    assert (checkpoint.latent_space, checkpoint.scaling.scale, checkpoint.scaling.shift) == (space, (scale,), (0.0,))
    assert checkpoint.config["scaling_factor"] == scale
    assert checkpoint.config["sample_size"] == {"sd1": 512, "sdxl": 1024}[space]


@pytest.mark.parametrize(
    ("tensor", "space", "scale", "shift"),
    [
        ("joint_blocks.0.context_block.adaLN_modulation.1.bias", "sd3", 1.5305, 0.0609),
        ("double_blocks.0.img_attn.norm.key_norm.scale", "flux1", 0.3611, 0.1159),
    ],
)
def test_a_transformer_tells_whose_vae_it_is(
    tmp_path: Path, tensor: str, space: str, scale: float, shift: float
) -> None:
    module = build_kl(
        (32,) * 4, layers_per_block=1, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False
    )
    save_file(full(module, {f"model.diffusion_model.{tensor}": torch.zeros(2)}), tmp_path / "any.safetensors")
    checkpoint = load_checkpoint(str(tmp_path / "any.safetensors"))
    assert (checkpoint.latent_space, checkpoint.scaling.scale, checkpoint.scaling.shift) == (space, (scale,), (shift,))


def test_a_unet_says_nothing_about_a_vae_whose_latents_do_not_fit_it(kl: Any, tmp_path: Path) -> None:
    save_file(full(kl, {UNET: torch.zeros(2, 1024)}), tmp_path / "x4.safetensors")  # f is 2, not 8
    assert "its scaling is not known" in refused(tmp_path / "x4.safetensors")


def test_a_full_checkpoint_without_a_vae_is_refused(tmp_path: Path) -> None:
    save_file({UNET: torch.zeros(2, 768)}, tmp_path / "unet.safetensors")
    assert "holds no VAE that is known" in refused(tmp_path / "unet.safetensors", scale=1)


# The file beside


def test_the_file_beside_tells_what_the_tensors_do_not(kl: Any, tmp_path: Path) -> None:
    save_file(to_ldm(kl.state_dict(), 2), tmp_path / "any.safetensors")
    declared = {"scaling_factor": 0.25, "shift_factor": 0.5, "latent_space": "mine@1", "force_upcast": False}
    (tmp_path / "any.json").write_text(json.dumps(declared))
    (tmp_path / "config.json").write_text("{}")
    checkpoint = load_checkpoint(str(tmp_path / "any.safetensors"))
    check(checkpoint, kl)
    assert checkpoint.latent_space == "mine@1"
    assert (checkpoint.scaling.scale, checkpoint.scaling.shift) == ((0.25,), (0.5,))
    assert checkpoint.config["force_upcast"] is False


def test_our_own_keys_in_the_file_beside_are_kept_and_not_warned_of(
    kl: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    caplog.set_level(logging.WARNING, logger="diffusers")  # whatever another test has left
    save_file(to_ldm(kl.state_dict(), 2), tmp_path / "any.safetensors")
    declared = {"scaling_factor": 0.25, "latent_space": "mine@1", "latent_units": [1, 2, 3, 4]}
    (tmp_path / "any.json").write_text(json.dumps(declared))
    checkpoint = load_checkpoint(str(tmp_path / "any.safetensors"))
    assert (checkpoint.config["latent_space"], checkpoint.latent_units) == ("mine@1", [1, 2, 3, 4])
    assert caplog.messages == []
    (tmp_path / "any.json").write_text(json.dumps({**declared, "scaling_facter": 1}))
    load_checkpoint(str(tmp_path / "any.safetensors"))
    assert any("scaling_facter" in message for message in caplog.messages)


def test_the_weights_of_a_diffusers_folder_may_be_named_themselves(kl: Any, tmp_path: Path) -> None:
    kl.save_pretrained(tmp_path)
    checkpoint = load_checkpoint(str(tmp_path / "diffusion_pytorch_model.safetensors"))
    check(checkpoint, kl)
    assert checkpoint.scaling == load_checkpoint(str(tmp_path)).scaling


def test_a_config_json_beside_that_is_another_network_s_says_nothing(kl: Any, tmp_path: Path) -> None:
    save_file(to_ldm(kl.state_dict(), 2), tmp_path / "any.safetensors")
    # As in Wan 2.1's repository, where it is the transformer's.
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "WanModel", "norm_num_groups": 1}))
    check(load_checkpoint(str(tmp_path / "any.safetensors"), scale=0.5), kl)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_network_stays_what_it_is_when_its_file_is_written_over(kl: Any, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    tensors = kl.state_dict()
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    checkpoint = load_checkpoint(str(path), scale=0.5)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    check(checkpoint, kl)


def test_a_file_beside_that_does_not_describe_the_tensors_is_refused(kl: Any, tmp_path: Path) -> None:
    save_file(kl.state_dict(), tmp_path / "any.safetensors")
    (tmp_path / "any.json").write_text(json.dumps({"_class_name": "AutoencoderKL", "block_out_channels": [32]}))
    assert "do not fit its configuration" in refused(tmp_path / "any.safetensors")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_file_beside_is_refused(kl: Any, tmp_path: Path, text: str) -> None:
    save_file(kl.state_dict(), tmp_path / "any.safetensors")
    (tmp_path / "any.json").write_text(text)
    assert "any.json" in refused(tmp_path / "any.safetensors")


# What is refused


@pytest.mark.parametrize("gone", ["decoder.up.0.block.0.conv1.bias", "quant_conv.bias", "encoder.mid.attn_1.q.weight"])
def test_a_missing_tensor_is_refused_by_name(kl: Any, tmp_path: Path, gone: str) -> None:
    tensors = to_ldm(kl.state_dict(), 2)
    del tensors[gone]
    save_file(tensors, tmp_path / "any.safetensors")
    assert "1 missing (such as " in refused(tmp_path / "any.safetensors", scale=1)


def test_an_extra_tensor_is_refused_by_name(kl: Any, tmp_path: Path) -> None:
    save_file(to_ldm(kl.state_dict(), 2) | {"decoder.time_stack": torch.zeros(1)}, tmp_path / "any.safetensors")
    message = refused(tmp_path / "any.safetensors", scale=1)
    assert "1 not known to the class (such as decoder.time_stack)" in message


def test_a_tensor_under_two_names_is_refused(kl: Any, tmp_path: Path) -> None:
    tensors = to_ldm(kl.state_dict(), 2)
    tensors["encoder.conv_norm_out.bias"] = tensors["encoder.norm_out.bias"].clone()
    save_file(tensors, tmp_path / "any.safetensors")
    assert "has 1 tensors twice, under different names" in refused(tmp_path / "any.safetensors", scale=1)


@pytest.mark.parametrize("shape", [(), (1,), (0, 0, 0, 0), (3, 1, 1, 1)])
@pytest.mark.parametrize(
    "name", ["encoder.conv_in.weight", "decoder.conv_in.weight", "encoder.down.0.block.0.conv1.weight"]
)
def test_a_tensor_of_a_shape_that_no_network_has_is_refused(
    kl: Any, tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    save_file(to_ldm(kl.state_dict(), 2) | {name: torch.zeros(shape)}, tmp_path / "any.safetensors")
    assert str(tmp_path) in refused(tmp_path / "any.safetensors", scale=1)


def test_a_lora_is_no_vae(tmp_path: Path) -> None:
    save_file({"lora_unet_down_blocks_0.lora_up.weight": torch.zeros(2)}, tmp_path / "lora.safetensors")
    assert "holds no VAE that is known" in refused(tmp_path / "lora.safetensors", scale=1)


def test_an_autoencoder_dc_in_its_makers_layout_is_refused_with_the_remedy(tmp_path: Path) -> None:
    name = "decoder.stages.1.op_list.0.main.conv.conv.weight"
    save_file({name: torch.zeros(2)}, tmp_path / "dc.safetensors")
    assert "give the folder of its diffusers form" in refused(tmp_path / "dc.safetensors", scale=1)


def test_a_single_file_runs(kl: Any, tmp_path: Path) -> None:
    save_file(to_ldm(kl.state_dict(), 2), tmp_path / "any.safetensors")
    vae = load_autoencoder(
        str(tmp_path / "any.safetensors"), device="cpu", scale=[1, 2, 3, 4], shift=0.5, latent_space="x"
    )
    assert (vae.spec.scale, vae.spec.shift, vae.spec.latent_space) == ((1.0, 2.0, 3.0, 4.0), (0.5,), "x")
    assert vae.spec.downsample_factor == 2


# Full size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prefix", "config"),
    [
        ("", {"latent_channels": 4}),
        ("first_stage_model.", {"latent_channels": 4}),
        ("", {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}),
    ],
    ids=["sd", "full checkpoint", "flux"],
)
def test_a_full_size_vae_loads_back_exactly(tmp_path: Path, prefix: str, config: dict[str, Any]) -> None:
    module = build_kl((128, 256, 512, 512), **config)
    tensors = {prefix + name: tensor for name, tensor in to_ldm(module.state_dict(), 4).items()}
    save_file(tensors, tmp_path / "any.safetensors")
    checkpoint = load_checkpoint(
        str(tmp_path / "any.safetensors"), scale=0.3611 if config["latent_channels"] == 16 else 0.18215
    )
    check(checkpoint, module)
    assert sum(p.numel() for p in checkpoint.module.parameters()) == sum(p.numel() for p in module.parameters())
    assert checkpoint.latent_space == ("flux1" if config["latent_channels"] == 16 else "sd1")
