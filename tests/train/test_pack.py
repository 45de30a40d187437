# SPDX-License-Identifier: Apache-2.0
"""Folders in, one file out, and the same images back from it."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentwire_codec.images.files import read_image, write_image
from latentwire_core.formats import ImageFormat
from latentwire_train.data.crops import RandomCrop
from latentwire_train.data.folder import DataError, ImageFolder, Problem, scan_folder
from latentwire_train.data.manifest import build_manifest
from latentwire_train.data.pack import PackOptions, open_pack, pack
from latentwire_train.data.stream import SampleStream

COUNT = 5


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    """Five images of mixed sizes, in two folders."""
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for k in range(COUNT):
        pixels = np.random.default_rng(k).integers(0, 256, (20 + k, 40 - k, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / ("deep" if k % 2 else "") / f"{k}.png")
    return scan_folder(tmp_path / "photos")


@pytest.mark.parametrize("options", [PackOptions(None), PackOptions(ImageFormat.PNG)])
def test_what_is_packed_without_loss_comes_back_equal(
    folder: ImageFolder, tmp_path: Path, options: PackOptions
) -> None:
    report = pack(folder, tmp_path / "x.npz", options)
    packed, problems = open_pack(tmp_path / "x.npz")
    assert (report.images, report.problems, problems) == (COUNT, (), ())
    assert report.size_bytes == (tmp_path / "x.npz").stat().st_size
    for k in range(COUNT):
        np.testing.assert_array_equal(packed.read(k), folder.read(k))
        assert packed.name(k) == folder.name(k)
        assert (packed.items[k].width, packed.items[k].height) == (folder.items[k].width, folder.items[k].height)
    one, two = (SampleStream(source, RandomCrop(16), seed=3) for source in (folder, packed))
    assert (one.sample(7) == two.sample(7)).all()


def test_what_is_packed_with_loss_is_what_the_encoder_wrote(folder: ImageFolder, tmp_path: Path) -> None:
    pack(folder, tmp_path / "x.npz", PackOptions(ImageFormat.JPEG, quality=60))
    packed, _ = open_pack(tmp_path / "x.npz")
    expected = read_image(write_image(folder.read(2), ImageFormat.JPEG, 60))
    np.testing.assert_array_equal(packed.read(2), expected)
    assert packed.encoding == "JPEG, quality 60"


def test_larger_images_are_scaled_down_to_the_shorter_side(folder: ImageFolder, tmp_path: Path) -> None:
    pack(folder, tmp_path / "x.npz", PackOptions(short_side=10))
    packed, _ = open_pack(tmp_path / "x.npz")
    sizes = {item.path: (item.width, item.height) for item in packed.items}
    assert sizes["0.png"] == (20, 10)
    assert sizes["4.png"] == (15, 10)
    assert [packed.read(k).shape[:2] for k in range(COUNT)] == [(item.height, item.width) for item in packed.items]


def test_the_digest_is_the_manifest_of_the_originals(folder: ImageFolder, tmp_path: Path) -> None:
    report = pack(folder, tmp_path / "x.npz")
    manifest = build_manifest(folder.root, [item.path for item in folder.items])
    packed, _ = open_pack(tmp_path / "x.npz")
    assert report.source_digest == packed.source_digest == manifest.digest


def test_numpy_and_pillow_alone_can_read_it(folder: ImageFolder, tmp_path: Path) -> None:
    pack(folder, tmp_path / "x.npz", PackOptions(ImageFormat.PNG))
    arrays = np.load(tmp_path / "x.npz")
    data, index = arrays["data"], json.loads(arrays["index"].tobytes())
    assert sorted(arrays.files) == ["data", "index"]
    assert (index["format"], index["version"], len(index["images"])) == ("latentwire-pack", 1, COUNT)
    at = 0
    for k, entry in enumerate(index["images"]):
        assert entry["start"] == at
        at = entry["end"]
        stored = data[entry["start"] : entry["end"]].tobytes()
        assert hashlib.sha256(stored).hexdigest() == entry["sha256"]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored)).convert("RGB")), folder.read(k))
        original = (folder.root / entry["path"]).read_bytes()
        assert hashlib.sha256(original).hexdigest() == entry["source_sha256"]
        assert len(original) == entry["source_bytes"]
    assert at == len(data)


def test_the_same_images_give_the_same_bytes(folder: ImageFolder, tmp_path: Path) -> None:
    for name, threads in (("a.npz", 1), ("b.npz", 3)):
        pack(folder, tmp_path / name, threads=threads)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_damaged_image_is_named_and_left_out(folder: ImageFolder, tmp_path: Path) -> None:
    path = folder.root / "2.png"
    path.write_bytes(path.read_bytes()[:90])
    found: list[Problem] = []
    report = pack(folder, tmp_path / "x.npz", report=found.append)
    assert [problem.name for problem in found] == ["2.png"]
    assert (report.images, report.problems) == (COUNT - 1, tuple(found))
    (folder.root / "0.png").unlink()
    with pytest.raises(DataError, match="2 of 5 images cannot be decoded"):
        pack(folder, tmp_path / "y.npz", report=found.append)
    assert not (tmp_path / "y.npz").exists()


def test_a_pack_that_would_be_too_large_is_refused_and_leaves_nothing(folder: ImageFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"exceeds 3000 bytes after 2 of 5 images \(PNG\); take a lower quality"):
        pack(folder, tmp_path / "x.npz", PackOptions(ImageFormat.PNG), max_bytes=3000)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    with pytest.raises(DataError, match=r"x.npz cannot be written: No such file or directory"):
        pack(folder, tmp_path / "none" / "x.npz")


def test_images_below_the_least_side_are_named_on_opening(folder: ImageFolder, tmp_path: Path) -> None:
    pack(folder, tmp_path / "x.npz")
    packed, problems = open_pack(tmp_path / "x.npz", min_side=22)
    assert len(packed) == 3
    assert [str(problem) for problem in problems] == [
        "0.png: is 40x20; each side must be at least 22 px",
        "deep/1.png: is 39x21; each side must be at least 22 px",
    ]
    with pytest.raises(DataError, match="has no image of at least 99 px"):
        open_pack(tmp_path / "x.npz", min_side=99)


def rewrite(path: Path, **changes: Any) -> None:
    arrays = dict(np.load(path))
    index = json.loads(arrays["index"].tobytes())
    for name, value in changes.items():
        if name == "data":
            arrays["data"] = value
        else:
            index[name] = value
    arrays["index"] = np.frombuffer(json.dumps(index).encode(), np.uint8)
    np.savez(path, **arrays)


def test_each_damage_to_a_pack_is_refused_by_name(folder: ImageFolder, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    pack(folder, path)
    good = path.read_bytes()
    data = np.load(path)["data"]

    def refused(message: str) -> None:
        with pytest.raises(DataError, match=rf"^x.npz {message}"):
            open_pack(path)
        path.write_bytes(good)

    for content in (b"", b"no zip", good[:-100], good[:100]):
        path.write_bytes(content)
        refused("is not a pack, or is damaged: ")
    np.savez(path, other=np.zeros(3))
    refused("is not a pack, or is damaged: ")
    path.unlink()
    refused("is not a pack, or is damaged: No such file or directory")
    rewrite(path, version=2)
    refused("is 'latentwire-pack' 2; 'latentwire-pack' 1 is read here")
    rewrite(path, images=[{"path": "a"}])
    refused("is not a pack, or is damaged: 'width'")
    flipped = data.copy()
    flipped[5] ^= 1
    rewrite(path, data=flipped)
    refused("is damaged: the SHA-256 of 0.png does not match")
    rewrite(path, data=data[:-1])
    refused("is damaged: the SHA-256 of deep/3.png does not match")


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="need an image_format"):
        PackOptions(None, short_side=10)
    with pytest.raises(ValueError, match="quality is 0"):
        PackOptions(quality=0)
    with pytest.raises(ValueError, match="PNG has none"):
        PackOptions(ImageFormat.PNG, quality=50)
    with pytest.raises(ValueError, match="short_side is 0"):
        PackOptions(short_side=0)
