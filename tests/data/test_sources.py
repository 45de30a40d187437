# SPDX-License-Identifier: Apache-2.0
"""Images wherever they lie -> items with keys, captions and classes, and their bytes."""

import io
import json
import pickle
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from latentwire_core.errors import DataError
from latentwire_data.item import Item
from latentwire_data.source import Source, open_source


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return path


def keys(source: Source) -> list[str]:
    return [item.key for item in source.items()]


def read_all(source: Source) -> dict[str, bytes]:
    return {item.key: source.read(item) for item in source.items()}


PHOTOS = {
    "a.png": png(1),
    "b/c.jpg": png(2),
    "b/c.txt": b"\xef\xbb\xbf a cat \n",
    "notes.md": b"",
    ".hidden.png": png(3),
}


def test_a_folder_gives_its_images_with_the_captions_beside_them(tmp_path: Path) -> None:
    source = open_source(str(write(tmp_path, PHOTOS)))
    first, second = source.items()
    assert first == Item("a.png", str(tmp_path / "a.png"), len(png(1)))
    assert (second.key, second.caption, second.sidecars) == ("b/c.jpg", "a cat", (str(tmp_path / "b/c.txt"),))
    assert source.read(second) == png(2)
    assert source.left_out == "1 hidden, 1 of other kinds (.md)"


def test_a_broken_link_is_a_problem_and_the_others_are_there(tmp_path: Path) -> None:
    (write(tmp_path, PHOTOS) / "gone.png").symlink_to("nowhere")
    source = open_source(str(tmp_path))
    assert keys(source) == ["a.png", "b/c.jpg"]
    assert source.problems == {"gone.png": "cannot be read: No such file or directory"}


def test_a_caption_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": png(1), "a.txt": b"caf\xe9"})
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8 \(byte 3\)"):
        keys(open_source(str(tmp_path)))


@pytest.fixture
def memory() -> Iterator[str]:
    system = fsspec.filesystem("memory")
    for name, data in PHOTOS.items():
        system.pipe_file(f"/photos/{name}", data)
    yield "memory://photos"
    system.rm("/photos", recursive=True)


def test_a_url_gives_what_the_folder_gives(memory: str, tmp_path: Path) -> None:
    here, there = open_source(str(write(tmp_path, PHOTOS))), open_source(memory)
    assert read_all(there) == read_all(here)
    assert [item.caption for item in there.items()] == [None, "a cat"]
    assert there.left_out == "1 hidden, 1 of other kinds"
    assert next(iter(there.items())).location == "memory://photos/a.png"


@pytest.mark.parametrize("location", ["nowhere", "memory://nowhere"])
def test_a_location_with_nothing_is_refused(location: str) -> None:
    with pytest.raises(DataError, match="nowhere"):
        open_source(location)


def test_a_protocol_that_is_not_installed_is_named() -> None:
    with pytest.raises(DataError, match="nosuch://x cannot be opened: Protocol not known"):
        open_source("nosuch://x")


SAMPLES = {
    "0001.jpg": png(1), "0001.txt": b"one\n", "0001.cls": b"7",
    "more/0002.PNG": png(2), "more/0002.json": b'{"caption": "two", "label": 3, "size": 1}',
    "0003.json": b"{}",
}  # fmt: skip


def test_shards_give_their_images_with_captions_and_classes(tmp_path: Path) -> None:
    write_tar(tmp_path / "x-000.tar", SAMPLES)
    write_tar(tmp_path / "x-001.tar", {"0001.webp": png(4)})
    source = open_source(str(tmp_path))
    found = list(source.items())
    assert [(item.key, item.caption, item.label) for item in found] == [
        ("x-000/0001", "one", 7), ("x-000/more/0002", "two", 3), ("x-001/0001", None, None),
    ]  # fmt: skip
    assert [source.read(item) for item in found] == [png(1), png(2), png(4)]
    assert source.left_out == "1 samples without an image"


def test_one_shard_is_a_source_too(tmp_path: Path) -> None:
    assert keys(open_source(str(write_tar(tmp_path / "x.tar", SAMPLES)))) == ["x/0001", "x/more/0002"]


def test_a_shard_that_was_cut_gives_what_is_whole_and_is_a_problem(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"1.png": png(1), "2.png": png(2) * 20})
    path.write_bytes(path.read_bytes()[: 512 * 4])
    source = open_source(str(path))
    assert keys(source) == ["x/1"]
    assert source.problems == {str(path): "ends inside 2.png; copy the shard again"}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.png": png(1), "1.jpg": png(2)}, "the sample '1' of .* has 2 images"),
        ({"1.png": png(1), "2.png": png(2), "1.jpg": png(3)}, "two samples named '1'"),
        ({"1.png": png(1), "1.cls": b"cat"}, "a field that cannot be read"),
        ({"1.png": png(1), "1.json": b"{"}, "a field that cannot be read"),
    ],
)
def test_samples_that_cannot_be_told_apart_or_read_are_refused(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        keys(open_source(str(write_tar(tmp_path / "x.tar", members))))


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(DataError, match="is no tar archive"):
        keys(open_source(str(tmp_path / "x.tar")))


def test_a_list_of_paths_is_relative_to_its_folder(tmp_path: Path) -> None:
    write(tmp_path, {**PHOTOS, "list.txt": b"b/c.jpg\n\na.png\ngone.png\n"})
    source = open_source(str(tmp_path / "list.txt"))
    assert read_all(source) == {"a.png": png(1), "b/c.jpg": png(2)}
    assert source.problems == {"gone.png": "cannot be read: No such file or directory"}


def test_a_list_of_objects_has_captions_and_classes(tmp_path: Path) -> None:
    lines = [{"image": "a.png", "caption": "one", "label": 2}, {"file_name": str(tmp_path / "b/c.jpg"), "text": "two"}]
    write(tmp_path, {**PHOTOS, "list.jsonl": "\n".join(map(json.dumps, lines)).encode()})
    found = sorted(open_source(str(tmp_path / "list.jsonl")).items(), key=lambda item: item.location)
    assert [(item.caption, item.label) for item in found] == [("one", 2), ("two", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png\na.png", "line 2 of .* names a.png again"),
        ('{"caption": "x"}', "line 1 of .* names no file; set one of image"),
        ("{", "line 1 of .* is no JSON"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, {**PHOTOS, "list.txt": text.encode()})
    with pytest.raises(DataError, match=message):
        keys(open_source(str(tmp_path / "list.txt")))


def make_parquet(root: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        image=datasets.Image(), text=datasets.Value("string"), label=datasets.ClassLabel(names=["x", "y"])
    )
    rows = {"image": [{"bytes": png(1), "path": None}, None], "text": ["one", "two"], "label": [1, 0]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(root / "part.parquet")


def make_imagefolder(root: Path) -> None:
    pytest.importorskip("datasets")
    write(root, {"a.png": png(1), "metadata.csv": b"file_name,text\na.png,one\n"})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # datasets leaves a file open
@pytest.mark.parametrize(("make", "label"), [(make_parquet, 1), (make_imagefolder, None)])
def test_a_dataset_of_hugging_face_gives_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], label: int | None
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    make(root)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    source = open_source(str(root))
    (item,) = source.items()
    assert (item.caption, item.label) == ("one", label)
    assert pickle.loads(pickle.dumps(source)).read(item) == png(1)


def test_metadata_make_a_dataset_only_where_captions_are_wanted(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": png(1), "metadata.csv": b"file_name,text\na.png,one\n", "dataset_info.json": b"{}"})
    (item,) = open_source(str(tmp_path), caption_suffixes=()).items()
    assert item == Item("a.png", str(tmp_path / "a.png"), len(png(1)))


def test_shards_behind_a_url_are_read_in_pieces(tmp_path: Path) -> None:
    data = write_tar(tmp_path / "x.tar", SAMPLES).read_bytes()
    system = fsspec.filesystem("memory")
    system.pipe_file("/shards/x.tar", data)
    try:
        source = open_source("memory://shards")
        found = list(source.items())
        assert [(item.key, item.caption, item.label) for item in found] == [
            ("x/0001", "one", 7), ("x/more/0002", "two", 3),
        ]  # fmt: skip
        assert [source.read(item) for item in found] == [png(1), png(2)]
    finally:
        system.rm("/shards", recursive=True)


def test_a_kind_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'zip' is no kind of source; there is folder, webdataset, huggingface, list"):
        open_source(str(tmp_path), kind="zip")


NAMES = st.text("abc.", min_size=1, max_size=4).filter(lambda name: not name.startswith("."))


@settings(max_examples=30, deadline=None)
@given(names=st.sets(NAMES, max_size=6))
def test_keys_are_unique_and_in_one_order(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    root = write(tmp_path_factory.mktemp("keys"), {f"{name}.png": png(0) for name in names})
    found = keys(open_source(str(root), kind="folder"))
    assert found == sorted(f"{name}.png" for name in names)
    assert found == keys(open_source(str(root), kind="folder"))
