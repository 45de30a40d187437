# SPDX-License-Identifier: Apache-2.0
"""Tests of what becomes of a folder of images."""

import dataclasses
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentwire_core.errors import DataError
from latentwire_train.config import DataConfig, FramingName, LayoutName
from latentwire_train.data.source import TrainingData, open_data

WHOLE = DataConfig(framing=FramingName.COVER, size=32, held_out_share=0.25)


def names(data: TrainingData) -> tuple[set[str], set[str]]:
    train, held_out = ({source.name(i) for i in range(len(source))} for source in (data.train, data.held_out))
    return train, held_out


def test_a_folder_is_split_by_the_hashes_of_its_names(photos: Path) -> None:
    data = open_data(photos, DataConfig(size=32, held_out_share=0.25))
    train, held_out = names(data)
    assert len(train) + len(held_out) == 12
    assert not train & held_out
    assert (train, held_out) == names(open_data(photos, DataConfig(size=32, held_out_share=0.25)))
    assert data.name == photos.name


def test_images_smaller_than_a_crop_are_named(photos: Path) -> None:
    with pytest.raises(DataError, match=r"has no usable image \(12 problems"):
        open_data(photos, DataConfig(size=64))
    assert len(open_data(photos, DataConfig(size=64, framing=FramingName.COVER)).problems) == 0


def test_the_digest_is_of_the_contents(photos: Path, tmp_path: Path) -> None:
    for path in photos.rglob("*.png"):
        target = tmp_path / path.relative_to(photos)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    before = open_data(photos, WHOLE).digest
    assert open_data(tmp_path, WHOLE).digest == before
    Image.new("RGB", (64, 48)).save(tmp_path / "a" / "01.png")
    assert open_data(tmp_path, WHOLE).digest != before


def celeba(root: Path, partitions: str | None) -> Path:
    (root / "img_align_celeba").mkdir()
    rows = [f"{number:06}.png" for number in range(8)]
    for number, name in enumerate(rows):
        Image.new("RGB", (40, 40), (number * 30, 0, 0)).save(root / "img_align_celeba" / name)
    (root / "list_attr_celeba.txt").write_text("8\nSmiling\n" + "".join(f"{name} 1\n" for name in rows))
    if partitions is not None:
        lines = zip(rows, partitions, strict=True)
        (root / "list_eval_partition.txt").write_text("".join(f"{name} {part}\n" for name, part in lines))
    return root


def test_celebas_partition_decides_and_its_test_set_is_left_alone(tmp_path: Path) -> None:
    train, held_out = names(open_data(celeba(tmp_path, "00001122"), WHOLE))
    assert train == {f"{number:06}.png" for number in range(4)}
    assert held_out == {"000004.png", "000005.png"}


def test_celeba_without_a_partition_is_split_by_hash(tmp_path: Path) -> None:
    train, held_out = names(open_data(celeba(tmp_path, None), WHOLE))
    assert len(train | held_out) == 8


def test_idx_files_are_found(tmp_path: Path) -> None:
    pixels = np.arange(8 * 28 * 28, dtype=np.uint8).reshape(8, 28, 28)
    header = struct.pack(">HBB3I", 0, 8, 3, *pixels.shape)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    data = open_data(tmp_path, WHOLE)
    assert len(data.train) + len(data.held_out) == 8
    assert data.train.read(0).shape == (28, 28, 3)
    assert [problem.name for problem in data.problems] == ["train-labels-idx1-ubyte"]


def test_a_layout_that_is_named_is_not_looked_for(tmp_path: Path) -> None:
    root = celeba(tmp_path, None)
    (root / "list_attr_celeba.txt").unlink()
    with pytest.raises(DataError, match="list_attr_celeba"):
        open_data(root, WHOLE)
    data = open_data(root, dataclasses.replace(WHOLE, layout=LayoutName.FOLDER))
    assert len(data.train) + len(data.held_out) == 8


def test_shards_and_lists_give_the_images_that_the_folder_gives(photos: Path, tmp_path: Path) -> None:
    files = sorted(path for path in photos.rglob("*") if path.suffix in (".jpg", ".png"))
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for number, path in enumerate(files):
            archive.add(path, f"{number}{path.suffix}")
    (tmp_path / "photos.txt").write_text("\n".join(map(str, files)))
    wanted = pixels_of(open_data(photos, WHOLE))
    for location in ("photos.tar", "photos.txt"):
        data = open_data(str(tmp_path / location), WHOLE)
        assert pixels_of(data) == wanted
        assert data.name == location


def pixels_of(data: TrainingData) -> set[bytes]:
    return {source.read(index).tobytes() for source in (data.train, data.held_out) for index in range(len(source))}
