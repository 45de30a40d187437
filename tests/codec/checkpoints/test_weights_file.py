# SPDX-License-Identifier: Apache-2.0
"""Tensors come out of a file, and nothing in it is ever run."""

import bz2
import gzip
import lzma
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from latentwire_codec.checkpoints.weights_file import open_weights
from latentwire_core.errors import CheckpointError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


class Trap:
    """Pickled, it is a call that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


class Callback:
    """What a training framework may keep beside the tensors."""


def refused(path: Path, allow_pickle: bool = False) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_weights(path, allow_pickle)
    return str(caught.value)


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("suffix", [".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".PT"])
def test_names_and_shapes_are_known_at_once_and_tensors_when_they_are_asked_for(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    save_file(TENSORS, path) if suffix in {".safetensors", ".sft"} else torch.save(TENSORS, path)
    opened = open_weights(path)
    assert dict(opened.shapes) == {"a.weight": (2, 3), "b": (2,)}
    assert same(opened.read(["b"]), {"b": TENSORS["b"]})
    assert same(opened.read(opened.shapes), TENSORS)


def test_files_from_before_torch_1_6_are_read_too(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert same(open_weights(tmp_path / "old.pt").read(TENSORS), TENSORS)


def test_a_state_dict_is_unwrapped_and_what_is_no_tensor_is_left_out(tmp_path: Path) -> None:
    wrapped = {"state_dict": {**TENSORS, "parameter": nn.Parameter(torch.ones(1)), "note": "x"}, "epoch": 3}
    torch.save(wrapped, tmp_path / "any.ckpt")
    found = open_weights(tmp_path / "any.ckpt").read(["a.weight", "parameter"])
    assert same(found, {"a.weight": TENSORS["a.weight"], "parameter": torch.ones(1)})
    assert not found["parameter"].requires_grad
    assert open_weights(tmp_path / "any.ckpt").shapes.keys() == {*TENSORS, "parameter"}


def test_a_bin_is_taken_only_where_it_is_allowed(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "any.bin")
    assert "is a pickle; allow pickles" in refused(tmp_path / "any.bin")
    assert same(open_weights(tmp_path / "any.bin", allow_pickle=True).read(TENSORS), TENSORS)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("allow_pickle", [True, False])
def test_code_in_a_pickle_is_refused_with_the_remedy_and_not_run(
    tmp_path: Path, zipped: bool, allow_pickle: bool
) -> None:
    mark = tmp_path / "mark"
    content = {**TENSORS, "trap": Trap(mark)}
    torch.save(content, tmp_path / "any.pt", _use_new_zipfile_serialization=zipped)
    message = refused(tmp_path / "any.pt", allow_pickle)
    assert "mkdir" in message
    assert "code in a file is never run" in message
    assert "safetensors.torch.save_file" in message
    assert not mark.exists()


@pytest.mark.parametrize("content", [Callback(), nn.Linear(2, 2)], ids=["an object", "a whole module"])
def test_objects_beside_the_tensors_are_refused_not_left_out(tmp_path: Path, content: object) -> None:
    torch.save({"state_dict": TENSORS, "callbacks": content}, tmp_path / "any.ckpt")
    assert "is no pickle of tensors alone" in refused(tmp_path / "any.ckpt")


def test_a_plain_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "any.pt").write_bytes(pickle.dumps(Trap(tmp_path / "mark"), protocol=2))
    assert "code in a file is never run" in refused(tmp_path / "any.pt")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("content", [[1, 2], 3, {"state_dict": {}}, {"a": 1}, {}, {1: torch.ones(1)}])
def test_a_pickle_without_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "any.pt")
    message = refused(tmp_path / "any.pt")
    assert "holds no tensors" in message or "a mapping of names to tensors is needed" in message


@pytest.mark.parametrize("name", ["any", "any.gguf", "any.onnx", "any.pkl", "any.zip"])
def test_a_pickle_is_taken_under_other_names_only_where_it_is_allowed(tmp_path: Path, name: str) -> None:
    torch.save(TENSORS, tmp_path / name)
    assert "is a pickle; allow pickles" in refused(tmp_path / name)
    assert same(open_weights(tmp_path / name, allow_pickle=True).read(TENSORS), TENSORS)


@pytest.mark.parametrize("name", ["any", "vae.ckpt", "vae.bin", "0a1b2c"])
def test_safetensors_are_read_whatever_they_are_called(tmp_path: Path, name: str) -> None:
    save_file(TENSORS, tmp_path / name)
    assert same(open_weights(tmp_path / name).read(TENSORS), TENSORS)


KINDS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"is empty \(0 bytes\); download it again"),
    "page": (b"\n<!DOCTYPE html><title>Sign in</title>", "is an HTML page, .*; download the file again"),
    "error": (b"<?xml version='1.0'?><Error/>", "is an XML text"),
    "git-annex": (b"/annex/objects/MD5E-s3--0\n", "is a git-annex pointer.*; fetch them with `git annex get`"),
    "gzip": (gzip.compress(b"weights"), "is compressed by gzip; unpack it with gunzip"),
    "bzip2": (bz2.compress(b"weights"), "is compressed by bzip2"),
    "xz": (lzma.compress(b"weights"), "is compressed by xz"),
    "zip": (b"PK\5\6" + bytes(18), "is a zip archive without a pickle of torch's; unpack it"),
    "tar": (bytes(257) + b"ustar\0" + bytes(249), "is a tar archive"),
    "gguf": (b"GGUF\3\0\0\0" + bytes(16), "is a GGUF file"),
    "onnx": (b"\x08\x08\x12\x07pytorch", "is an ONNX model"),
    "json": (b'{"_class_name": "AutoencoderKL"}', "is a JSON text"),
    "noise": (b"\xfe\xfe junk", "is of no kind that is known: it begins with fe fe 20 6a 75 6e 6b"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".bin"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_holds_no_weights_is_called_by_its_kind(tmp_path: Path, kind: str, suffix: str) -> None:
    content, message = KINDS[kind]
    path = tmp_path / f"vae{suffix}"
    path.write_bytes(content)
    told = refused(path, allow_pickle=True)
    assert re.search(message, told)
    assert "weights_only" not in told


def test_a_zip_archive_of_other_files_is_called_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "vae.pt", "w") as archive:
        archive.writestr("vae.safetensors", b"x")
    assert "is a zip archive" in refused(tmp_path / "vae.pt")


@pytest.mark.parametrize("cut", [20, 100, -30])
def test_a_pickle_that_is_cut_short_says_so_without_advice_to_run_it(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "vae.ckpt"
    torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[:cut])
    assert "cannot be read as a pickle of tensors" in refused(path)
    assert "weights_only" not in refused(path)


def test_a_link_to_nothing_is_named_with_its_target(tmp_path: Path) -> None:
    (tmp_path / "vae.safetensors").symlink_to("../.git/annex/objects/xx/MD5E-s3")
    assert re.search(
        "is a link to .*, which is not there; fetch it with `git annex get`", refused(tmp_path / "vae.safetensors")
    )


@pytest.mark.parametrize(
    "wrapped",
    [
        {"model": TENSORS, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}},
        {"ema": TENSORS, "step": 3},
        {"checkpoint": {"net": {"_orig_mod." + name: tensor for name, tensor in TENSORS.items()}}},
        {"module." + name: tensor for name, tensor in TENSORS.items()},
        {"module._orig_mod." + name: tensor for name, tensor in TENSORS.items()},
        {"_orig_mod.module." + name: tensor for name, tensor in TENSORS.items()},
        {"state_dict": TENSORS, "ema": {name: tensor + 1 for name, tensor in TENSORS.items()}},
    ],
    ids=str,
)
def test_what_training_wraps_around_the_names_is_taken_off(tmp_path: Path, wrapped: dict[str, Any]) -> None:
    torch.save(wrapped, tmp_path / "vae.ckpt")
    opened = open_weights(tmp_path / "vae.ckpt")
    assert same(opened.read(opened.shapes), TENSORS)


def test_wrappers_are_taken_off_in_safetensors_too(tmp_path: Path) -> None:
    save_file({f"_orig_mod.{name}": tensor for name, tensor in TENSORS.items()}, tmp_path / "vae.safetensors")
    opened = open_weights(tmp_path / "vae.safetensors")
    assert same(opened.read(opened.shapes), TENSORS)


def test_several_sets_of_weights_are_named_and_none_is_guessed(tmp_path: Path) -> None:
    torch.save({"model": TENSORS, "ema": TENSORS, "epoch": 3}, tmp_path / "vae.ckpt")
    assert "holds tensors below each of ema, model; save the one that is wanted" in refused(tmp_path / "vae.ckpt")


def test_a_name_that_is_there_with_and_without_a_wrapper_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1), "_orig_mod.a": torch.zeros(1)}, tmp_path / "vae.safetensors")
    assert "has 1 tensors twice" in refused(tmp_path / "vae.safetensors")


@pytest.mark.parametrize("content", [struct.pack("<Q", 9) + b"{", struct.pack("<Q", 2) + b"{]"], ids=len)
def test_a_broken_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "any.safetensors").write_bytes(content)
    assert "cannot be read as safetensors" in refused(tmp_path / "any.safetensors")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=64))
def test_any_bytes_are_refused_as_a_pickle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "any.pt").write_bytes(content)
    assert str(tmp_path) in refused(tmp_path / "any.pt")


def test_a_pickle_under_the_name_of_safetensors_is_not_unpickled(tmp_path: Path) -> None:
    torch.save({"trap": Trap(tmp_path / "mark")}, tmp_path / "any.safetensors")
    assert "is a pickle; allow pickles" in refused(tmp_path / "any.safetensors")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_pointer_of_git_lfs_is_refused_with_the_remedy(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 334643276\n")
    assert refused(path) == f"{path} is a Git LFS pointer, not the weights themselves; fetch them with `git lfs pull`"


def test_what_the_unpickler_stumbled_over_is_named_by_its_kind(tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"\x80\x02" + b"junk" * 100)
    assert refused(tmp_path / "junk.pt").endswith("cannot be read as a pickle of tensors: KeyError 1785425525")
    (tmp_path / "other.pt").write_bytes(pickle.dumps({"a": bytearray(b"x" * 9)}, protocol=5))
    assert "cannot be read as a pickle of tensors" in refused(tmp_path / "other.pt")
    assert "weights_only" not in refused(tmp_path / "other.pt")
