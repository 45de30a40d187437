# SPDX-License-Identifier: Apache-2.0
"""Sources in, networks with exactly their weights out, or an error that says what is wrong."""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentwire_codec.checkpoints.checkpoint import digest, load_checkpoint
from latentwire_codec.checkpoints.folder import WEIGHTS, bundled_in, bundled_names, find_folder
from latentwire_codec.networks.pipeline_vae import AutoencoderLatentVAE, AutoencoderVectorVAE
from latentwire_core.errors import CheckpointError, ModelError, UnknownModel

WHOLE = "diffusion_pytorch_model.safetensors"
INDEX = "diffusion_pytorch_model.safetensors.index.json"

Build = Callable[..., Any]


def same_weights(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / WHOLE)
    change(weights)
    save_file(weights, folder / WHOLE)


def reconfigure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# Bundled


@pytest.mark.parametrize(
    ("name", "space", "channels"), [("f8c4", "latentwire-f8c4@3", 4), ("f8c32", "latentwire-f8c32@1", 32)]
)
def test_a_bundled_model_is_known_by_its_name_and_by_its_space(name: str, space: str, channels: int) -> None:
    assert name in bundled_names()
    assert bundled_in(space) == name
    checkpoint = load_checkpoint(name)
    assert checkpoint.class_name == "AutoencoderLatentVAE"
    assert checkpoint.latent_space == space
    assert checkpoint.config["latent_channels"] == channels
    file = (WEIGHTS / name / WHOLE).read_bytes()
    assert checkpoint.file_sha256 == hashlib.sha256(file).hexdigest()


@pytest.mark.parametrize("space", ["", "sd1", "latentwire-f8c4@1"])
def test_a_space_of_no_bundled_model_gives_no_name(space: str) -> None:
    assert bundled_in(space) == ""


def test_a_loaded_module_is_float32_in_eval_mode_on_the_cpu() -> None:
    module = load_checkpoint("f8c4").module
    assert not module.training
    assert {(p.dtype, p.device.type) for p in module.parameters()} == {(torch.float32, "cpu")}


def test_a_bundled_name_wins_over_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f8c4").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_folder("f8c4") == WEIGHTS / "f8c4"


# Folders


def test_a_diffusers_folder_loads_with_its_weights_and_complete_configuration(
    build_kl: Build, tiny_kl_folder: Path
) -> None:
    checkpoint = load_checkpoint(str(tiny_kl_folder))
    assert checkpoint.class_name == "AutoencoderKL"
    assert isinstance(checkpoint.module, AutoencoderKL)
    assert same_weights(checkpoint.module.state_dict(), build_kl().state_dict())
    assert checkpoint.config["scaling_factor"] == 0.18215  # a default of the class
    assert not any(key.startswith("_") for key in checkpoint.config)
    assert checkpoint.latent_space == ""


def test_a_latent_vae_folder_loads_with_its_latent_space(tiny_latent_vae: AutoencoderLatentVAE, tmp_path: Path) -> None:
    tiny_latent_vae.save_pretrained(tmp_path)
    checkpoint = load_checkpoint(str(tmp_path))
    assert checkpoint.latent_space == "tiny@1"
    assert same_weights(checkpoint.module.state_dict(), tiny_latent_vae.state_dict())


def test_a_vector_vae_folder_loads_with_its_weights_and_complete_configuration(
    tiny_vector_vae: AutoencoderVectorVAE, tmp_path: Path
) -> None:
    tiny_vector_vae.save_pretrained(tmp_path)
    checkpoint = load_checkpoint(str(tmp_path))
    assert checkpoint.class_name == "AutoencoderVectorVAE"
    assert checkpoint.latent_space == "tiny-vector@1"
    assert (checkpoint.config["image_size"], checkpoint.config["sample_size"]) == (32, 32)
    assert same_weights(checkpoint.module.state_dict(), tiny_vector_vae.state_dict())


def test_any_class_may_name_its_latent_space_in_its_config(tiny_kl_folder: Path) -> None:
    reconfigure(tiny_kl_folder, latent_space="sd1")
    assert load_checkpoint(str(tiny_kl_folder)).latent_space == "sd1"


def test_a_sharded_folder_loads_as_the_same_weights(build_kl: Build, tmp_path: Path) -> None:
    build_kl().save_pretrained(tmp_path / "whole")
    build_kl().save_pretrained(tmp_path / "sharded", max_shard_size="10KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert (tmp_path / "sharded" / INDEX).is_file()
    whole = load_checkpoint(str(tmp_path / "whole"))
    sharded = load_checkpoint(str(tmp_path / "sharded"))
    assert same_weights(whole.module.state_dict(), sharded.module.state_dict())
    assert sharded.weights_digest == whole.weights_digest
    assert whole.file_sha256 != ""
    assert sharded.file_sha256 == ""


@pytest.mark.parametrize("max_shard_size", ["10GB", "10KB"], ids=["whole", "sharded"])
def test_the_fp16_variant_loads_in_float32_and_is_known_as_what_it_is(
    build_kl: Build, tmp_path: Path, max_shard_size: str
) -> None:
    half = build_kl().half()
    half.save_pretrained(tmp_path, variant="fp16", max_shard_size=max_shard_size)
    checkpoint = load_checkpoint(str(tmp_path))
    assert {p.dtype for p in checkpoint.module.parameters()} == {torch.float32}
    assert same_weights(checkpoint.module.state_dict(), half.float().state_dict())
    assert checkpoint.weights_digest == digest(build_kl().half().state_dict())


def test_full_precision_is_preferred_to_the_fp16_variant(build_kl: Build, tmp_path: Path) -> None:
    build_kl().half().save_pretrained(tmp_path, variant="fp16")
    build_kl().save_pretrained(tmp_path)
    checkpoint = load_checkpoint(str(tmp_path))
    assert same_weights(checkpoint.module.state_dict(), build_kl().state_dict())


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("max_shard_size", ["10GB", "10KB"], ids=["whole", "sharded"])
def test_pickled_weights_load_where_they_are_allowed(
    build_kl: Build, tmp_path: Path, variant: str | None, max_shard_size: str
) -> None:
    module = build_kl()
    module.save_pretrained(tmp_path, safe_serialization=False, variant=variant, max_shard_size=max_shard_size)
    assert not list(tmp_path.glob("*.safetensors"))
    assert "allow pickles (allow_pickle=True), or save it as safetensors" in refused(tmp_path)
    checkpoint = load_checkpoint(str(tmp_path), allow_pickle=True)
    assert same_weights(checkpoint.module.state_dict(), module.state_dict())


def test_safetensors_are_preferred_to_pickles_even_where_those_are_allowed(build_kl: Build, tmp_path: Path) -> None:
    build_kl().half().save_pretrained(tmp_path, variant="fp16")
    build_kl().save_pretrained(tmp_path, safe_serialization=False)
    checkpoint = load_checkpoint(str(tmp_path), allow_pickle=True)
    assert checkpoint.weights_digest == digest(build_kl().half().state_dict())


@pytest.mark.parametrize("old", [True, False], ids=["variant last", "variant first"])
def test_shards_of_a_variant_load_under_their_old_names_and_their_new_ones(
    build_kl: Build, tmp_path: Path, old: bool
) -> None:
    half = build_kl().half()
    half.save_pretrained(tmp_path, variant="fp16", max_shard_size="10KB")
    (index,) = tmp_path.glob("*.index.*")
    text = index.read_text()
    for shard in list(tmp_path.glob("*-of-*.safetensors")):
        stem, _, count = shard.name.removesuffix(".safetensors").replace(".fp16", "").partition("-")
        new = f"{stem}-{count}.fp16.safetensors" if old else f"{stem}.fp16-{count}.safetensors"
        text = text.replace(shard.name, new)
        shard.rename(tmp_path / new)
    index.unlink()
    name = "safetensors.index.fp16.json" if old else "fp16.safetensors.index.json"
    (tmp_path / f"diffusion_pytorch_model.{name}").write_text(text)
    checkpoint = load_checkpoint(str(tmp_path))
    assert same_weights(checkpoint.module.state_dict(), half.float().state_dict())


def test_a_pipelines_folder_stands_for_its_vae(build_kl: Build, tmp_path: Path) -> None:
    build_kl().save_pretrained(tmp_path / "vae")
    (tmp_path / "model_index.json").write_text("{}")
    assert find_folder(str(tmp_path)) == tmp_path / "vae"
    assert load_checkpoint(str(tmp_path)).class_name == "AutoencoderKL"


@pytest.mark.parametrize("as_convolutions", [False, True])
def test_attention_layers_under_their_old_names_are_the_same_network(
    build_kl: Build, tiny_kl_folder: Path, as_convolutions: bool
) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def age(weights: dict[str, Tensor]) -> None:
        renamed = 0
        for name in list(weights):
            for new, former in old.items():
                if f".{new}." in name:
                    tensor = weights.pop(name)
                    if as_convolutions and tensor.ndim == 2:
                        tensor = tensor[:, :, None, None].contiguous()
                    weights[name.replace(new, former)] = tensor
                    renamed += 1
        assert renamed == 16

    rewrite(tiny_kl_folder, age)
    module = load_checkpoint(str(tiny_kl_folder)).module
    assert same_weights(module.state_dict(), build_kl().state_dict())


def test_a_folder_in_the_home_directory_may_be_named_with_a_tilde(
    tiny_kl_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tiny_kl_folder.parent))
    assert find_folder("~/tiny") == tiny_kl_folder


# What is refused


def refused(source: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(str(source))
    return str(caught.value)


def test_a_missing_tensor_is_refused_by_name(tiny_kl_folder: Path) -> None:
    rewrite(tiny_kl_folder, lambda weights: weights.pop("decoder.conv_in.bias"))
    assert "1 missing (such as decoder.conv_in.bias)" in refused(tiny_kl_folder)


def test_an_extra_tensor_is_refused_by_name(tiny_kl_folder: Path) -> None:
    rewrite(tiny_kl_folder, lambda weights: weights.update(extra=torch.zeros(1)))
    assert "1 not known to the class (such as extra)" in refused(tiny_kl_folder)


@pytest.mark.parametrize("name", ["decoder.conv_in.bias", "encoder.mid_block.attentions.0.to_q.weight"])
def test_a_tensor_of_another_shape_is_refused_by_name(tiny_kl_folder: Path, name: str) -> None:
    rewrite(tiny_kl_folder, lambda weights: weights.update({name: torch.zeros(3)}))
    assert f"1 of another shape (such as {name})" in refused(tiny_kl_folder)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_refused_by_name(tiny_kl_folder: Path, number: float) -> None:
    name = "decoder.conv_in.bias"
    rewrite(tiny_kl_folder, lambda weights: weights[name].__setitem__(0, number))
    assert f"1 not finite (such as {name})" in refused(tiny_kl_folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_a_tensor_that_is_not_of_floating_point_numbers_is_refused_by_name(
    tiny_kl_folder: Path, dtype: torch.dtype
) -> None:
    name = "decoder.conv_in.bias"
    rewrite(tiny_kl_folder, lambda weights: weights.update({name: weights[name].to(dtype)}))
    assert f"1 not of floating-point numbers (such as {name})" in refused(tiny_kl_folder)


def test_several_problems_are_told_together(tiny_kl_folder: Path) -> None:
    def change(weights: dict[str, Tensor]) -> None:
        weights["extra"] = weights.pop("decoder.conv_in.bias")

    rewrite(tiny_kl_folder, change)
    assert "1 missing (such as decoder.conv_in.bias); 1 not known" in refused(tiny_kl_folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[]", "holds no JSON object"),
        (b"{}", "names the class ''; supported: AutoencoderLatentVAE, AutoencoderVectorVAE, AutoencoderKL"),
        (b'{"_class_name": "VQModel"}', "names the class 'VQModel'; supported: "),
        (b'{"_class_name": "AutoencoderKL", "latent_channels": "four"}', "does not describe an"),
        (
            b'{"_class_name": "AutoencoderVectorVAE", "image_size": 48}',
            "image_size is 48; it must be one of",
        ),
        (b'{"_class_name": "AutoencoderVectorVAE", "latent_dim": "six"}', "does not describe an AutoencoderVectorVAE"),
    ],
)
def test_a_broken_configuration_is_refused(tiny_kl_folder: Path, text: bytes, message: str) -> None:
    (tiny_kl_folder / "config.json").write_bytes(text)
    assert message in refused(tiny_kl_folder)


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    assert "has no config.json, nor a vae/config.json" in refused(tmp_path)


def test_a_folder_without_safetensors_is_refused_with_what_was_looked_for(
    tiny_kl_folder: Path,
) -> None:
    (tiny_kl_folder / WHOLE).rename(tiny_kl_folder / "diffusion_pytorch_model.bin")
    message = refused(tiny_kl_folder)
    assert "has no safetensors weights" in message
    assert WHOLE in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"not safetensors", "is of no kind that is known"),
        (struct.pack("<Q", 9) + b"{}", "cannot be read as safetensors"),
    ],
)
def test_a_broken_weights_file_is_refused(tiny_kl_folder: Path, content: bytes, message: str) -> None:
    (tiny_kl_folder / WHOLE).write_bytes(content)
    assert message in refused(tiny_kl_folder)


def test_a_truncated_weights_file_is_refused(tiny_kl_folder: Path) -> None:
    content = (tiny_kl_folder / WHOLE).read_bytes()
    (tiny_kl_folder / WHOLE).write_bytes(content[:-1])
    assert "cannot be read as safetensors" in refused(tiny_kl_folder)


def test_a_file_where_a_folder_is_needed_is_refused_with_the_remedy(tiny_kl_folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a file; give the folder that holds config\.json"):
        find_folder(str(tiny_kl_folder / WHOLE))


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/file", 7])
def test_an_index_that_names_files_outside_its_folder_is_refused(tiny_kl_folder: Path, name: object) -> None:
    (tiny_kl_folder / WHOLE).unlink()
    (tiny_kl_folder / INDEX).write_text(json.dumps({"weight_map": {"tensor": name}}))
    assert "names files outside its folder" in refused(tiny_kl_folder)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a":[]}}'])
def test_a_broken_index_is_refused(tiny_kl_folder: Path, text: str) -> None:
    (tiny_kl_folder / WHOLE).unlink()
    (tiny_kl_folder / INDEX).write_text(text)
    assert "is not an index of shards" in refused(tiny_kl_folder)


@pytest.mark.parametrize("name", ["absent.safetensors", "..", ""])
def test_a_shard_that_is_no_file_is_refused(tiny_kl_folder: Path, name: str) -> None:
    (tiny_kl_folder / WHOLE).unlink()
    (tiny_kl_folder / INDEX).write_text(json.dumps({"weight_map": {"tensor": name}}))
    refused(tiny_kl_folder)


# Names that are no folder


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def cache_snapshot(cache: Path, source: str) -> Path:
    """Lay out a repository as the hub's client caches it, and return its snapshot's folder."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / f"models--{source.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    return snapshot


def test_a_hub_id_that_is_not_cached_is_unknown_and_the_message_says_how_to_get_it(
    hub_cache: Path,
) -> None:
    with pytest.raises(UnknownModel, match=r"`hf download some-one/some\.vae`"):
        load_checkpoint("some-one/some.vae")


@pytest.mark.parametrize("inside", ["", "vae"])
def test_a_hub_id_that_is_cached_loads(build_kl: Build, hub_cache: Path, inside: str) -> None:
    snapshot = cache_snapshot(hub_cache, "some-one/some.vae")
    build_kl().save_pretrained(snapshot / inside)
    checkpoint = load_checkpoint("some-one/some.vae")
    assert same_weights(checkpoint.module.state_dict(), build_kl().state_dict())


@pytest.mark.parametrize("source", ["absent", "a/b/c", "/absent/folder", "http://x/y", "-"])
def test_a_source_of_no_known_form_is_unknown_and_the_message_names_the_bundled(hub_cache: Path, source: str) -> None:
    with pytest.raises(UnknownModel, match=r"neither a bundled one \(f8c32, f8c4\) nor a folder or file"):
        load_checkpoint(source)


@pytest.mark.parametrize("source", ["a/b--c", "a/b..c", "a/b.git", "a/" + "b" * 120])
def test_a_source_that_looks_like_a_hub_id_but_cannot_be_one_is_unknown(hub_cache: Path, source: str) -> None:
    with pytest.raises(UnknownModel, match="it is not a folder, and cannot be a hub id"):
        load_checkpoint(source)


def test_an_empty_source_is_an_error_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError):
        load_checkpoint("")


# The digest


def test_the_digest_is_sha256_over_names_dtypes_shapes_and_bytes() -> None:
    weights = {"b": torch.tensor(1.5), "a": torch.tensor([[1, 2]], dtype=torch.bfloat16)}
    expected = hashlib.sha256(b"a\0bfloat16\x001,2\0" + bytes.fromhex("803f0040") + b"b\0float32\0\0" + b"\0\0\xc0\x3f")
    assert digest(weights) == expected.hexdigest()


dtypes = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8])


@settings(deadline=None)
@given(names=st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=5), data=st.data())
def test_the_digest_does_not_depend_on_the_order(names: list[str], data: st.DataObject) -> None:
    weights = {name: torch.arange(6).to(data.draw(dtypes)) for name in names}
    shuffled = data.draw(st.permutations(names))
    assert digest({name: weights[name] for name in shuffled}) == digest(weights)


def test_the_digest_does_not_depend_on_the_memory_layout() -> None:
    tensor = torch.arange(24.0).reshape(1, 2, 3, 4)
    strided = tensor.contiguous(memory_format=torch.channels_last)
    assert digest({"a": strided}) == digest({"a": tensor})


@settings(deadline=None)
@given(position=st.integers(0, 8 * 24 - 1))
def test_the_digest_changes_with_any_bit(position: int) -> None:
    data = bytearray(range(24))
    before = digest({"a": torch.frombuffer(data, dtype=torch.float32)})
    data[position // 8] ^= 1 << position % 8
    assert digest({"a": torch.frombuffer(data, dtype=torch.float32)}) != before


def test_the_digest_tells_names_dtypes_and_shapes_apart() -> None:
    zeros = torch.zeros(4)
    variants = [
        {"a": zeros},
        {"b": zeros},
        {"a": zeros.reshape(2, 2)},
        {"a": zeros.reshape(1, 4)},
        {"a": zeros.to(torch.int32)},
        {"a": zeros[:2].double()},
        {"a": zeros[:2], "b": zeros[2:]},
        {"a": zeros[:0]},
        {},
    ]
    assert len({digest(weights) for weights in variants}) == len(variants)
