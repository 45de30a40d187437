# SPDX-License-Identifier: Apache-2.0
"""Tensors come out of a file, and nothing in it is ever run."""

import os
import pickle
import struct
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
def test_a_file_of_an_unknown_kind_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    torch.save(TENSORS, tmp_path / name)
    assert "is of no kind that is known; known: .safetensors" in refused(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"{}", struct.pack("<Q", 2**40) + b"{}"], ids=len)
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
    assert "cannot be read as safetensors" in refused(tmp_path / "any.safetensors")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_pointer_of_git_lfs_is_refused_with_the_remedy(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 334643276\n")
    assert refused(path) == f"{path} is a Git LFS pointer, not the weights themselves; fetch them with `git lfs pull`"


def test_what_the_unpickler_stumbled_over_is_named_by_its_kind(tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk" * 100)
    assert refused(tmp_path / "junk.pt").endswith("cannot be read as a pickle of tensors: KeyError 1785425525")
