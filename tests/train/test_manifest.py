# SPDX-License-Identifier: Apache-2.0
"""Files in, one hash over their names, sizes and bytes out."""

import hashlib
from pathlib import Path

import pytest

from latentwire_train.data.folder import DataError
from latentwire_train.data.manifest import Manifest, ManifestEntry, build_manifest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.png").write_bytes(b"abc")
    (tmp_path / "b" / "c.png").write_bytes(b"")
    return tmp_path


def test_the_digest_is_the_documented_one(root: Path) -> None:
    manifest = build_manifest(root, ["b/c.png", "a.png"])
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert manifest.entries == (ManifestEntry("a.png", 3, abc), ManifestEntry("b/c.png", 0, nothing))
    lines = f"a.png\0{3}\0{abc}\nb/c.png\0{0}\0{nothing}\n"
    assert manifest.digest == hashlib.sha256(lines.encode()).hexdigest()
    assert manifest.size_bytes == 3


def test_order_and_place_change_nothing(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "moved"
    digest = build_manifest(root, ["a.png", "b/c.png"]).digest
    root.rename(other)
    assert build_manifest(other, ["b/c.png", "a.png"]).digest == digest


def test_any_byte_name_or_missing_file_changes_the_digest(root: Path) -> None:
    digests = [build_manifest(root, ["a.png", "b/c.png"]).digest, build_manifest(root, ["a.png"]).digest]
    for content in (b"abd", b"\xe1bc", b"abc\0", b"ab"):
        (root / "a.png").write_bytes(content)
        digests.append(build_manifest(root, ["a.png", "b/c.png"]).digest)
    (root / "a.png").write_bytes(b"abc")
    (root / "a.png").rename(root / "A.png")
    digests.append(build_manifest(root, ["A.png", "b/c.png"]).digest)
    assert len(set(digests)) == len(digests)


def test_progress_counts_files(root: Path) -> None:
    calls: list[tuple[int, int]] = []
    build_manifest(root, ["a.png", "b/c.png"], lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]


def test_a_missing_file_is_named_and_a_path_given_twice_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"b/gone.png cannot be read for the manifest: No such file"):
        build_manifest(root, ["a.png", "b/gone.png"])
    with pytest.raises(ValueError, match=r"a.png appears twice"):
        build_manifest(root, ["a.png", "a.png"])


def test_names_that_are_not_utf8_are_hashed_by_their_bytes() -> None:
    entry = ManifestEntry("\udcff.png", 1, "00")
    assert Manifest.of([entry]).digest == hashlib.sha256(b"\xff.png\x001\x0000\n").hexdigest()
