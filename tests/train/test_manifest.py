# SPDX-License-Identifier: Apache-2.0
"""Files in, one hash over their names, sizes and bytes out."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from latentwire_core.errors import DataError
from latentwire_train.data.manifest import manifest_digest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.png").write_bytes(b"abc")
    (tmp_path / "b" / "c.png").write_bytes(b"")
    return tmp_path


def digest(root: Path, names: Sequence[str]) -> str:
    return manifest_digest({name: (root / name).read_bytes for name in names})


def test_the_digest_is_the_documented_one(root: Path) -> None:
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    lines = f"a.png\0{3}\0{abc}\nb/c.png\0{0}\0{nothing}\n"
    assert digest(root, ["b/c.png", "a.png"]) == hashlib.sha256(lines.encode()).hexdigest()


def test_order_and_place_change_nothing(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "moved"
    before = digest(root, ["a.png", "b/c.png"])
    root.rename(other)
    assert digest(other, ["b/c.png", "a.png"]) == before


def test_any_byte_name_or_missing_file_changes_the_digest(root: Path) -> None:
    digests = [digest(root, ["a.png", "b/c.png"]), digest(root, ["a.png"])]
    for content in (b"abd", b"\xe1bc", b"abc\0", b"ab"):
        (root / "a.png").write_bytes(content)
        digests.append(digest(root, ["a.png", "b/c.png"]))
    (root / "a.png").write_bytes(b"abc")
    (root / "a.png").rename(root / "A.png")
    digests.append(digest(root, ["A.png", "b/c.png"]))
    assert len(set(digests)) == len(digests)


def test_a_missing_file_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"b/gone.png cannot be read for the manifest: No such file"):
        digest(root, ["a.png", "b/gone.png"])


def test_names_that_are_not_utf8_are_hashed_by_their_bytes(root: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    (root / name).write_bytes(b"")
    nothing = hashlib.sha256().hexdigest().encode()
    assert digest(root, [name]) == hashlib.sha256(b"\xff.png\x000\x00" + nothing + b"\n").hexdigest()
