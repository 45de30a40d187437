# SPDX-License-Identifier: Apache-2.0
"""A file is there whole or not at all."""

from pathlib import Path

import pytest

from latentwire_core.files import write_whole


def test_the_folders_above_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "c.png", b"pixels")
    assert (tmp_path / "a" / "b" / "c.png").read_bytes() == b"pixels"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["c.png"]


def test_a_name_as_long_as_a_file_system_takes_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".png")
    write_whole(path, b"pixels")
    assert path.read_bytes() == b"pixels"


def test_what_was_there_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
