# SPDX-License-Identifier: Apache-2.0
"""Commands that are killed, interrupted, or meet a full disk: nothing is lost, doubled or left in parts."""

import errno
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentwire_core.container import read_header
from latentwire_core.latents import Latents
from tests.conftest import Run, files
from tests.waiting import PAUSE_S, until

PROGRAM = str(Path(sys.executable).with_name("latentwire"))
IMAGES = 24
SUFFIXES = {"encode": ".safetensors", "compress": ".lat"}
BEFORE = re.compile(r"note: (\d+) of (\d+) files were written")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two sizes: every third is larger."""
    folder = tmp_path_factory.mktemp("photos")
    random_pixels = np.random.default_rng(7)
    for number in range(IMAGES):
        side = 96 if number % 3 == 0 else 48
        Image.fromarray(random_pixels.integers(0, 256, (side, side, 3), np.uint8)).save(folder / f"{number:02}.png")
    return folder


def written(folder: Path, suffix: str) -> set[Path]:
    return set(folder.glob(f"*{suffix}")) if folder.is_dir() else set()


def begin(command: str, photos: Path, out: Path, target: str, *more: str) -> "subprocess.Popen[str]":
    arguments = [PROGRAM, command, str(photos), "-o", str(out), "--server", target, "--model", "tiny", *more]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_whole(command: str, path: Path) -> None:
    """Raise where a file is a part of itself."""
    if command == "encode":
        Latents.load(path)
    else:
        read_header(path.read_bytes())


@pytest.mark.parametrize("command", SUFFIXES)
def test_a_killed_command_goes_on_where_it_was(command: str, photos: Path, target: str, tmp_path: Path) -> None:
    suffix, out, whole = SUFFIXES[command], tmp_path / "out", tmp_path / "whole"
    undisturbed = begin(command, photos, whole, target)
    undisturbed.communicate()
    assert undisturbed.returncode == 0
    moments = random.Random(f"kill {command}")
    killed = 0
    for kill_at in sorted(moments.sample(range(1, IMAGES - 4), 3)):
        before = len(written(out, suffix))
        process = begin(command, photos, out, target, "--skip-existing")
        # Behind the note that says how much was written before.
        wanted = max(kill_at, before + 1)
        while len(written(out, suffix)) < wanted and process.poll() is None:
            time.sleep(PAUSE_S)
        process.kill()
        _, err = process.communicate()
        killed += process.returncode == -signal.SIGKILL
        for path in written(out, suffix):
            check_whole(command, path)
        told = BEFORE.search(err)
        assert (int(told[1]) if told else 0) == before
    assert killed
    before = len(written(out, suffix))
    last = begin(command, photos, out, target, "--skip-existing")
    text, err = last.communicate()
    assert last.returncode == 0
    assert f"{IMAGES - before} of {IMAGES - before} images" in text or before == IMAGES
    assert f"note: {before} of {IMAGES} files were written" in err
    # Hidden partial files are gone, too: nothing but the files of a run that nobody disturbed, byte for byte.
    assert files(str(out)) == files(str(whole))
    assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in files(str(whole)))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", SUFFIXES)
def test_an_interrupted_command_says_how_many_are_done_and_how_to_go_on(
    command: str, number: signal.Signals, status: int, photos: Path, target: str, tmp_path: Path
) -> None:
    # Each image many times under names of its own: the signal comes long before the end.
    many = tmp_path / "many"
    many.mkdir()
    for copy in range(40):
        for path in photos.iterdir():
            (many / f"{copy}-{path.name}").symlink_to(path)
    out = tmp_path / "out"
    process = begin(command, many, out, target)
    until(lambda: len(written(out, SUFFIXES[command])) >= 3 or process.poll() is not None)
    process.send_signal(number)
    text, err = process.communicate()
    assert (process.returncode, text) == (status, "")
    told = re.fullmatch(r"interrupted: (\d+) of 960 are done; the same command with --skip-existing goes on\n", err)
    assert told is not None, err
    assert int(told[1]) in (len(files(str(out))), len(files(str(out))) - 1)
    for path in written(out, SUFFIXES[command]):
        check_whole(command, path)


@pytest.mark.parametrize("command", SUFFIXES)
def test_a_file_that_is_larger_than_allowed_fails_alone(
    command: str, photos: Path, target: str, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    undisturbed = begin(command, photos, whole, target)
    undisturbed.communicate()
    assert undisturbed.returncode == 0
    sizes = sorted((whole / name).stat().st_size for name in files(str(whole)))
    limit = (sizes[0] + sizes[-1]) // 2
    arguments = [PROGRAM, command, str(photos), "-o", str(tmp_path / "out"), "--server", target, "--model", "tiny"]
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    fitting = sum(size <= limit for size in sizes)
    assert done.returncode == 1
    assert done.stderr.count("File too large") == IMAGES - fitting
    assert len(files(str(tmp_path / "out"))) == fitting
    assert f"{fitting} of {IMAGES} images" in done.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk takes the right to mount one: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("command", SUFFIXES)
def test_a_full_disk_ends_the_run_once_and_skip_existing_goes_on(
    command: str, photos: Path, target: str, small_disk: Path
) -> None:
    out, suffix = small_disk / "out", SUFFIXES[command]
    (small_disk / "ballast").write_bytes(bytes(40_000))
    process = begin(command, photos, out, target)
    _, err = process.communicate()
    assert process.returncode == 1
    there = len(written(out, suffix))
    assert 0 < there < IMAGES
    assert err.count("No space left on device") == 1
    assert f"the other {IMAGES - there}: No space left on device" in err
    for path in written(out, suffix):
        check_whole(command, path)
    assert files(str(out)) == {path.name for path in written(out, suffix)}
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    process = begin(command, photos, out, target, "--skip-existing")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert f"note: {there} of {IMAGES} files were written" in err
    assert len(files(str(out))) == IMAGES


@pytest.mark.parametrize("command", SUFFIXES)
def test_a_read_only_folder_is_refused_before_any_work(
    command: str, photos: Path, target: str, small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    process = begin(command, photos, small_disk / "out", target)
    _, err = process.communicate()
    assert (process.returncode, err) == (2, f"error: {small_disk} cannot be written to; give another folder with -o\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("command", SUFFIXES)
def test_a_disk_that_takes_no_more_breaks_the_run_off(
    command: str, number: int, photos: Path, target: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync: Callable[[int], None] = os.fsync
    left = iter(range(5))

    def full(descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "out"
    status, text, err = run(command, str(photos), "-o", str(out), "--server", target, "--model", "tiny")
    assert status == 1
    assert f"5 of {IMAGES} images" in text
    assert err == f"error: the other {IMAGES - 5}: {os.strerror(number)}\n"
    assert len(files(str(out))) == 5


@pytest.mark.parametrize("command", SUFFIXES)
def test_a_command_that_fails_leaves_no_folder(command: str, photos: Path, tmp_path: Path, run: Run) -> None:
    assert run(command, str(photos), "-o", str(tmp_path / "a" / "b"), "--server", "127.0.0.1:1")[0] == 2
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("command", "suffix"), [("decode", ".safetensors"), ("encode", ".png")])
def test_links_in_a_circle_and_to_nothing_fail_alone_and_are_named(
    command: str, suffix: str, photos: Path, target: str, tmp_path: Path, run: Run
) -> None:
    good = next(iter(sorted(photos.iterdir())))
    folder = tmp_path / "folder"
    folder.mkdir()
    if command == "decode":
        assert run("encode", str(good), "-o", str(folder), "--server", target, "--model", "tiny")[0] == 0
    else:
        (folder / "good.png").write_bytes(good.read_bytes())
    (folder / f"lost{suffix}").symlink_to("nowhere")
    (folder / f"loop{suffix}").symlink_to(f"loop{suffix}")
    (folder / "up").symlink_to(folder)
    status, text, err = run(command, str(folder), "-o", str(tmp_path / "out"), "--server", target, "--model", "tiny")
    assert status == 1
    assert "1 of 3" in text
    assert sorted(err.splitlines()) == [
        f"error: {folder}/loop{suffix}: Too many levels of symbolic links",
        f"error: {folder}/lost{suffix}: it is a link to nowhere, which is not there",
        f"note: left out of {folder}: 1 linked folders that were looked through before",
    ]
