# SPDX-License-Identifier: Apache-2.0
"""Folders of images in, usable images and problems by name out."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentwire_codec.images.files import ImageLimits
from latentwire_core.errors import DataError
from latentwire_train.data.folder import ImageFolder, Problem, Subset, describe, scan_images


def save(path: Path, width: int = 12, height: int = 10, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def paths(folder: ImageFolder) -> list[str]:
    return [item.path for item in folder.items]


def test_nested_images_of_mixed_sizes_and_formats_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    save(tmp_path / "b.png", 30, 20)
    save(tmp_path / "a" / "deep" / "z.JPG", 16, 50)
    save(tmp_path / "a" / "c.webp", 9, 9)
    save(tmp_path / "a.bmp", 8, 8)
    found = scan_images(tmp_path)
    assert paths(found) == ["a.bmp", "a/c.webp", "a/deep/z.JPG", "b.png"]
    assert [(item.width, item.height) for item in found.items] == [(8, 8), (9, 9), (16, 50), (30, 20)]
    assert found.problems == ()
    assert found.read(3).shape == (20, 30, 3)
    assert found.name(3) == "b.png"


def test_hidden_files_and_other_files_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / ".hidden.png")
    save(tmp_path / ".cache" / "b.png")
    (tmp_path / "notes.txt").write_text("no image")
    found = scan_images(tmp_path)
    assert paths(found) == ["a.png"]
    assert found.problems == ()


def test_bad_files_are_named_with_their_reason_and_the_rest_is_used(tmp_path: Path) -> None:
    save(tmp_path / "good.png")
    save(tmp_path / "small.png", 7, 90)
    save(tmp_path / "wide.png", 101, 10)
    save(tmp_path / "big.png", 90, 90)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("<html>not found</html>")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = scan_images(tmp_path, min_side=8, limits=ImageLimits(max_side=100, max_pixels=8000))
    assert paths(found) == ["good.png"]
    reasons = {problem.name: problem.reason for problem in found.problems}
    assert reasons == {
        "small.png": "is 7x90; each side must be at least 8 px",
        "wide.png": "is 101x10; each side must be at most 100 px",
        "big.png": "is 90x90, 8100 pixels; at most 8000 are decoded",
        "gone.png": "cannot be read: No such file or directory",
        "empty.jpg": "cannot be read: the image is empty (0 bytes); send the whole file",
        "text.png": "cannot be read: the 22 bytes starting with 3c 68 74 6d 6c 3e 6e 6f are not an image that can be "
        "read; send one of PNG, JPEG, WEBP, AVIF, TIFF, GIF, BMP, PPM",
    }


def test_only_headers_are_read(tmp_path: Path) -> None:
    whole = save(tmp_path / "cut.png", 64, 64).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:200])
    assert paths(scan_images(tmp_path)) == ["cut.png"]


def test_a_folder_that_contains_itself_by_a_link_ends(tmp_path: Path) -> None:
    save(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    save(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    assert paths(scan_images(tmp_path / "data")) == ["a.png", "linked/b.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "closed" / "b.png")
    (tmp_path / "closed").chmod(0)
    try:
        found = scan_images(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert found.problems == (Problem("closed", "cannot be listed: Permission denied"),)


def test_a_folder_of_which_nothing_is_left_is_refused_with_the_first_problems(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is neither a folder nor a file"):
        scan_images(tmp_path / "none")
    with pytest.raises(DataError, match=r"no usable image .it holds no image file"):
        scan_images(tmp_path)
    save(tmp_path / "a.png", 5, 5)
    with pytest.raises(DataError, match=r"1 problems: a.png: is 5x5; each side must be at least 32 px"):
        scan_images(tmp_path, min_side=32)
    with pytest.raises(ValueError, match="min_side is 0"):
        scan_images(tmp_path, min_side=0)


def test_a_subset_has_the_names_and_pixels_of_its_source(tmp_path: Path) -> None:
    for k in range(4):
        save(tmp_path / f"{k}.png", seed=k)
    source = scan_images(tmp_path)
    subset = Subset(source, (3, 1))
    assert [subset.name(k) for k in range(len(subset))] == ["3.png", "1.png"]
    np.testing.assert_array_equal(subset.read(1), source.read(1))


def test_many_problems_are_described_in_a_few_words() -> None:
    problems = [Problem(f"{k}.png", "is bad") for k in range(4)]
    assert describe(problems, 2) == "0.png: is bad; 1.png: is bad; and 2 more"
    assert describe(problems[:1], 2) == "0.png: is bad"
    assert describe([]) == ""


def test_good_pixels_beside_damaged_texts_are_used_and_other_files_counted(tmp_path: Path) -> None:
    save(tmp_path / "good.png", 20, 20)
    data = (tmp_path / "good.png").read_bytes()
    wrong = b"\0\0\0\3tEXtx\0y\0\0\0\0"  # its checksum is not 0
    (tmp_path / "texts.png").write_bytes(data[:33] + wrong + data[33:])
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.png").touch()
    found = scan_images(tmp_path)
    assert paths(found) == ["good.png", "texts.png"]
    assert (found.read(0) == found.read(1)).all()
    assert found.problems == ()
    assert found.left_out == "1 hidden, 1 of other kinds (.txt)"
