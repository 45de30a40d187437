# SPDX-License-Identifier: Apache-2.0
"""A file is there whole or not at all."""

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from latentwire_core.files import remove_partials, write_whole


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


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from latentwire_core.files import write_whole
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
write_whole(Path(sys.argv[1]), b"half")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="partial files are not locked there")
def test_a_killed_writer_s_partial_file_is_removed_by_the_next(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, tmp_path / "file"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    write_whole(tmp_path / "file", b"whole")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"whole")]


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    path, contents = tmp_path / "file", [bytes([number]) * 100_000 for number in range(8)]
    failures: list[BaseException] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(20):
                write_whole(path, content)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_to_be_replaced_stays_and_leaves_no_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_whole(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_only_one_of_many_writers_makes_a_file_that_is_not_to_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write(number: int) -> bool:
        try:
            write_whole(path, str(number).encode() * 10_000, replace=False)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(write, range(10, 60)))
    assert made.count(True) == 1
    assert path.read_bytes() == str(10 + made.index(True)).encode() * 10_000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="partial files are not locked there")
def test_partial_files_are_removed_but_for_those_that_are_being_written(tmp_path: Path) -> None:
    import fcntl

    (tmp_path / ".left.partial").write_bytes(b"half")
    held = tmp_path / ".held.partial"
    with held.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert remove_partials(tmp_path) == 1
        assert list(tmp_path.iterdir()) == [held]
    assert remove_partials(tmp_path) == 1
