# SPDX-License-Identifier: Apache-2.0
"""Folders in CelebA's layout in, images with attributes out; what does not match is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentwire_core.errors import DataError
from latentwire_train.data.celeba import read_attributes, read_partition, scan_celeba
from latentwire_train.data.folder import Problem

TEXT = "3\nSmiling Eyeglasses \n000001.jpg -1  1\n000002.jpg  1 -1\n000003.jpg  1  1\n"
CSV = "image_id,Smiling,Eyeglasses\n000001.jpg,-1,1\n000002.jpg,1,-1\n000003.jpg,1,1\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images, without labels yet."""
    (tmp_path / "img_align_celeba").mkdir()
    for k in (1, 2, 3):
        Image.new("RGB", (18, 22), (k, 0, 0)).save(tmp_path / "img_align_celeba" / f"00000{k}.jpg")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list_attr_celeba.txt", TEXT),
        ("list_attr_celeba.csv", CSV),
        ("Anno/list_attr_celeba.txt", TEXT.replace("\n", "\r\n")),
        ("list_attr_celeba.csv", "\ufeff" + CSV.replace(",", ", ") + "\n\n"),
    ],
)
def test_both_forms_give_the_same_attributes(root: Path, name: str, content: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(content, newline="")
    found = scan_celeba(root)
    assert found.attributes == ("Smiling", "Eyeglasses")
    assert found.values.tolist() == [[-1, 1], [1, -1], [1, 1]]
    assert found.values.dtype == np.int8
    assert [found.name(k) for k in range(len(found))] == ["000001.jpg", "000002.jpg", "000003.jpg"]
    assert found.read(1).shape == (22, 18, 3)
    assert found.problems == ()
    assert found.partition is None
    with pytest.raises(DataError, match=r"no list_eval_partition.txt or .csv"):
        found.indices("train")


def test_an_archive_that_was_unpacked_twice_deep_is_found(root: Path) -> None:
    (root / "img_align_celeba").rename(root / "inner")
    (root / "img_align_celeba").mkdir()
    (root / "inner").rename(root / "img_align_celeba" / "img_align_celeba")
    (root / "list_attr_celeba.csv").write_text(CSV)
    assert len(scan_celeba(root)) == 3


def test_rows_without_a_file_and_files_without_a_row_are_named_and_skipped(root: Path) -> None:
    (root / "list_attr_celeba.csv").write_text(CSV.replace("000002", "000009"))
    found = scan_celeba(root)
    assert [item.path for item in found.items] == ["000001.jpg", "000003.jpg"]
    assert found.values.tolist() == [[-1, 1], [1, 1]]
    assert set(found.problems) == {
        Problem("000009.jpg", "has a row in list_attr_celeba.csv but no file in img_align_celeba"),
        Problem("000002.jpg", "has no usable row in list_attr_celeba.csv"),
    }


def test_a_bad_image_is_named_once_and_its_row_is_not_missed(root: Path) -> None:
    (root / "list_attr_celeba.txt").write_text(TEXT)
    (root / "img_align_celeba" / "000002.jpg").write_bytes(b"no image")
    found = scan_celeba(root)
    assert found.values.tolist() == [[-1, 1], [1, 1]]
    assert [problem.name for problem in found.problems] == ["000002.jpg"]
    small = scan_celeba(root, min_side=18)
    assert len(small) == 2


def test_labels_of_other_names_are_refused(root: Path) -> None:
    (root / "list_attr_celeba.csv").write_text(CSV.replace(".jpg", ".png"))
    with pytest.raises(DataError, match=r"none of the 3 images .*the names must agree, suffix included"):
        scan_celeba(root)


def test_what_is_missing_or_there_twice_is_refused(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(DataError, match="has no folder img_align_celeba"):
        scan_celeba(tmp_path_factory.mktemp("empty"))
    with pytest.raises(DataError, match=r"has no list_attr_celeba.txt or .csv"):
        scan_celeba(root)
    (root / "list_attr_celeba.csv").write_text(CSV)
    (root / "list_attr_celeba.txt").write_text(TEXT)
    with pytest.raises(
        DataError, match=r"has list_attr_celeba.txt and list_attr_celeba.csv, which may differ; remove all but one"
    ):
        scan_celeba(root)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", ":1: '' is not the number of rows"),
        ("a.txt", TEXT[2:], ":1: 'Smiling Eyeglasses' is not the number of rows"),
        ("a.txt", "3\n", " ends after line 1"),
        ("a.txt", "3\n \n000001.jpg 1\n", ": the header names no attribute"),
        ("a.txt", TEXT.replace("Eyeglasses", "Smiling"), ": the header names Smiling twice"),
        ("a.txt", TEXT.replace("Smiling ", ""), ":3: 000001.jpg has 2 values for the 1 attributes of the header"),
        ("a.txt", TEXT.replace("Smiling", "Smiling Hat"), ":3: 000001.jpg has 2 values for the 3 attributes"),
        ("a.txt", "3\nSmiling\n", " has no usable row (a.txt:1: announces 3 rows; there are 0)"),
        ("a.txt", "1\nSmiling\na.jpg 0\n", " has no usable row (a.txt:3: a.jpg has the value '0'; attributes are 1 or"),
        ("a.csv", "", ":1: the first column is ''; it must be image_id"),
        ("a.csv", CSV.replace("image_id", "file"), ":1: the first column is 'file'; it must be image_id"),
        ("a.csv", CSV.replace(",", ";"), ":1: the first column is 'image_id;Smiling;Eyeglasses'"),
        ("a.csv", "image_id\n000001.jpg\n", ": the header names no attribute"),
        ("a.csv", CSV.replace(",Smiling", ""), ":2: 000001.jpg has 2 values for the 1 attributes of the header"),
        ("a.csv", CSV.replace("-1", '"1', 1), " is not CSV: "),
        ("a.csv", "image_id,Smiling\n", " has no usable row (it has no rows)"),
    ],
)
def test_each_label_file_that_cannot_be_trusted_is_refused_by_name_and_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as error:
        read_attributes(tmp_path / name)
    assert str(error.value).startswith(name + message)


def test_a_label_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"3\n\xff\xfe")
    with pytest.raises(DataError, match=r"a.txt is not text in UTF-8 \(byte 2\)"):
        read_attributes(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"b.txt cannot be read: No such file"):
        read_attributes(tmp_path / "b.txt")


def test_damaged_rows_are_named_by_line_and_skipped(tmp_path: Path) -> None:
    rows = ["a.jpg 1 1", "b.jpg 1", "c.jpg 1 0", "d.jpg 1 x", "e.jpg -1 1 1", "f.jpg", "g.jpg -1 -1"]
    (tmp_path / "a.txt").write_text("\n".join(["9", "Smiling Hat", *rows]))
    table = read_attributes(tmp_path / "a.txt")
    assert table.values == {"a.jpg": (1, 1), "g.jpg": (-1, -1)}
    assert [str(problem) for problem in table.problems] == [
        "a.txt:4: b.jpg has 1 values for the 2 attributes of the header",
        "a.txt:5: c.jpg has the value '0'; attributes are 1 or -1",
        "a.txt:6: d.jpg has the value 'x'; attributes are 1 or -1",
        "a.txt:7: e.jpg has 3 values for the 2 attributes of the header",
        "a.txt:8: f.jpg has 0 values for the 2 attributes of the header",
        "a.txt:1: announces 9 rows; there are 7",
    ]


def test_a_row_that_is_there_twice_counts_once_and_contradictions_not_at_all(tmp_path: Path) -> None:
    rows = ["image_id,Smiling", "a.jpg,1", "b.jpg,1", "a.jpg,1", "b.jpg,-1", "b.jpg,1"]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    table = read_attributes(tmp_path / "a.csv")
    assert table.values == {"a.jpg": (1,)}
    assert [str(problem) for problem in table.problems] == [
        "a.csv:4: repeats a.jpg of line 2",
        "a.csv:5: contradicts line 3 about b.jpg; neither is used",
        "a.csv:6: contradicts line 3 about b.jpg; neither is used",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list_eval_partition.txt", "000001.jpg 0\n000002.jpg 2\n"),
        ("Eval/list_eval_partition.csv", "image_id,partition\n000001.jpg,0\n000002.jpg,2\n"),
    ],
)
def test_the_partition_says_where_an_image_belongs(root: Path, name: str, content: str) -> None:
    (root / "list_attr_celeba.txt").write_text(TEXT)
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(content)
    found = scan_celeba(root)
    assert found.partition is not None
    assert found.partition.tolist() == [0, 2, -1]
    assert (found.indices("train"), found.indices("validation"), found.indices("test")) == ([0], [], [1])
    assert found.problems == (Problem("000003.jpg", f"has no row in {Path(name).name}"),)
    with pytest.raises(ValueError, match="partition is 'eval'; it must be one of train, validation, test"):
        found.indices("eval")


def test_damaged_rows_of_a_partition_are_named(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a.jpg 0\nb.jpg 3\nc.jpg\nd.jpg 0 1\na.jpg 1\n\ne.jpg 1\n")
    parts, problems = read_partition(tmp_path / "p.txt")
    assert parts == {"a.jpg": 0, "e.jpg": 1}
    assert [str(problem) for problem in problems] == [
        "p.txt:2: b.jpg has the partition '3'; it is 0, 1 or 2",
        "p.txt:3: c.jpg has the partition ''; it is 0, 1 or 2",
        "p.txt:4: d.jpg has the partition '0 1'; it is 0, 1 or 2",
        "p.txt:5: contradicts an earlier line about a.jpg; the first is used",
    ]
    (tmp_path / "p.csv").write_text("image_id,split\na.jpg,0\n")
    with pytest.raises(DataError, match=r"p.csv:1: the columns are image_id, split; image_id, partition are needed"):
        read_partition(tmp_path / "p.csv")
