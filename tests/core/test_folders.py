# SPDX-License-Identifier: Apache-2.0
"""A folder's files are found once each, whatever links it holds, and what is left out is counted."""

import os
from pathlib import Path

import pytest

from latentwire_core.folders import find_files

IMAGES = (".jpg", ".png")


def made(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(root: Path, avoided: Path | None = None) -> list[str]:
    return [path.as_posix() for path in find_files(root, IMAGES, avoided).files]


def test_files_come_before_subfolders_by_name(tmp_path: Path) -> None:
    made(tmp_path, "b/x.png", "a/z.JPG", "a/deep/er/y.png", "c.png", "a.jpg")
    assert found(tmp_path) == ["a.jpg", "c.png", "a/z.JPG", "a/deep/er/y.png", "b/x.png"]


def test_what_is_left_out_is_said_with_its_number_and_reason(tmp_path: Path) -> None:
    made(tmp_path, "a.png", ".hidden.png", ".cache/b.png", "a.txt", "b.txt", "README", "notes.md")
    os.mkfifo(tmp_path / "pipe.png")
    there = find_files(tmp_path, IMAGES)
    assert there.files == (Path("a.png"),)
    assert there.left_out == "2 hidden, 1 pipes or devices, 4 of other kinds (.txt .md no suffix)"


def test_a_folder_of_nothing_else_leaves_nothing_out(tmp_path: Path) -> None:
    assert find_files(made(tmp_path, "a.png"), IMAGES).left_out == ""


def test_links_to_folders_are_followed_and_each_folder_once(tmp_path: Path) -> None:
    made(tmp_path / "elsewhere", "far.png")
    made(tmp_path / "here", "sub/near.png")
    (tmp_path / "here" / "far").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "here" / "sub" / "up").symlink_to(tmp_path / "here")
    (tmp_path / "here" / "again").symlink_to("sub")
    there = find_files(tmp_path / "here", IMAGES)
    assert sorted(path.as_posix() for path in there.files) == ["again/near.png", "far/far.png"]
    assert there.left_out == "2 linked folders that were looked through before"


def test_links_that_lead_nowhere_or_in_a_circle_are_files_that_reading_names(tmp_path: Path) -> None:
    made(tmp_path, "a.png")
    (tmp_path / "lost.png").symlink_to("nowhere")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "loop").symlink_to("loop")
    there = find_files(tmp_path, IMAGES)
    assert [path.name for path in there.files] == ["a.png", "loop.png", "lost.png"]
    assert there.left_out == "1 of other kinds (no suffix)"


@pytest.mark.parametrize("linked", [False, True])
def test_the_folder_that_is_written_to_is_not_looked_through(tmp_path: Path, linked: bool) -> None:
    made(tmp_path, "a.png", "out/b.png")
    avoided = tmp_path / "out"
    if linked:
        avoided = tmp_path / ".link"
        avoided.symlink_to("out")
    assert found(tmp_path, avoided) == ["a.png"]
    # Not even where nothing else is there to look through: an input is looked through all the same.
    assert found(tmp_path / "out", avoided) == ["b.png"]


def test_a_folder_that_cannot_be_listed_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "a.png", "private/b.png")
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if path.name == "private":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    there = find_files(tmp_path, IMAGES)
    assert there.files == (Path("a.png"),)
    assert there.unlistable == {Path("private"): "Permission denied"}
