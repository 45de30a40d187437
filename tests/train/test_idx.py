# SPDX-License-Identifier: Apache-2.0
"""IDX files in, images and labels out; damage is named before anything is allocated."""

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from latentwire_core.errors import DataError
from latentwire_train.data.folder import Problem
from latentwire_train.data.idx import read_idx, scan_idx

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
LABELS = np.array([3, 0, 1, 1, 2, 3], np.uint8)


def encode(array: npt.NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("separator", ["-", "."])
@pytest.mark.parametrize("split", ["train", "t10k"])
def test_images_and_labels_are_found_by_mnists_names(tmp_path: Path, suffix: str, separator: str, split: str) -> None:
    pack = gzip.compress if suffix else bytes
    write(tmp_path / f"{split}-images{separator}idx3-ubyte{suffix}", pack(encode(IMAGES)))
    write(tmp_path / f"{split}-labels{separator}idx1-ubyte{suffix}", pack(encode(LABELS)))
    found = scan_idx(tmp_path, split)
    np.testing.assert_array_equal(found.pixels, IMAGES)
    assert found.labels is not None
    np.testing.assert_array_equal(found.labels, LABELS)
    assert found.problems == ()
    assert found.name(2) == f"{split}-images{separator}idx3-ubyte{suffix}[2]"
    assert [path.name[:11] for path in found.files] == [f"{split}-images"[:11], f"{split}-labels"[:11]]
    np.testing.assert_array_equal(found.read(2), np.stack([IMAGES[2]] * 3, axis=2))


def test_labels_become_one_attribute_for_each_class(tmp_path: Path) -> None:
    write(tmp_path / "train-images-idx3-ubyte", encode(IMAGES))
    write(tmp_path / "train-labels-idx1-ubyte", encode(LABELS))
    found = scan_idx(tmp_path)
    names, values = found.attributes()
    assert names == ("class 0", "class 1", "class 2", "class 3")
    assert values.dtype == np.int8
    assert values.tolist()[0] == [-1, -1, -1, 1]
    assert values.tolist()[1] == [1, -1, -1, -1]
    named, _ = found.attributes(["Shirt", "Coat", "Bag", "Boot", "Dress"])
    assert named[4] == "Dress"
    with pytest.raises(DataError, match="label 3 of train-labels-idx1-ubyte has no name; 3 names are given"):
        found.attributes(["Shirt", "Coat", "Bag"])


def test_missing_labels_are_reported_and_missing_images_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no train-images-idx3-ubyte, with or without .gz"):
        scan_idx(tmp_path)
    write(tmp_path / "train-images-idx3-ubyte.gz", gzip.compress(encode(IMAGES)))
    found = scan_idx(tmp_path)
    assert found.labels is None
    assert found.problems == (Problem("train-labels-idx1-ubyte.gz", "is missing; the images have no labels"),)
    with pytest.raises(DataError, match=r"has no labels beside it; put train-labels-idx1-ubyte.gz there"):
        found.attributes()


def test_labels_of_another_set_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train-images-idx3-ubyte", encode(IMAGES))
    write(tmp_path / "train-labels-idx1-ubyte", encode(LABELS[:5]))
    with pytest.raises(DataError, match="has 5 labels for the 6 images of train-images-idx3-ubyte"):
        scan_idx(tmp_path)


def test_images_without_pixels_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train-images-idx3-ubyte", encode(IMAGES[:0]))
    with pytest.raises(DataError, match=r"holds no pixels: its dimensions are \(0, 5, 4\)"):
        scan_idx(tmp_path)


def test_compression_is_seen_from_the_bytes_not_the_name(tmp_path: Path) -> None:
    path = write(tmp_path / "unpacked.gz", encode(LABELS))
    np.testing.assert_array_equal(read_idx(path, dimensions=1), LABELS)


GOOD = encode(IMAGES)
ZIPPED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with nothing; an IDX file starts with 00 00"),
        (b"\0\0\x08", "starts with 00 00 08"),
        (b"\x89PNG\r\n\x1a\n", "starts with 89 50 4e 47"),
        (b"\0\0\x0d\x03" + GOOD[4:], "elements of type 0x0d; only 0x08"),
        (encode(LABELS), "has 1 dimensions; 3 are needed"),
        (GOOD[:10], "ends within its header, at byte 10"),
        (GOOD[:-1], "announces 6x5x4 = 120 bytes and has 119"),
        (GOOD + b"\0", "announces 6x5x4 = 120 bytes and has 121"),
        (GOOD[:4] + b"\xff" * 12, "at most 4294967296 are read"),
        (GOOD[:4] + b"\0\0\xff\xff" + GOOD[8:], "announces 65535x5x4 = 1310700 bytes and has 120"),
        (ZIPPED[:-20], "cannot be read: Compressed file ended before the end-of-stream marker"),
        (ZIPPED[:-8] + b"\0\0\0\0" + ZIPPED[-4:], "cannot be read: CRC check failed"),
        (ZIPPED[:10] + b"\xff" * 20, "cannot be read: Error -3 while decompressing data"),
        (gzip.compress(GOOD[:-1], mtime=0), "announces 6x5x4 = 120 bytes and has 119"),
        (gzip.compress(GOOD + b"\0\0", mtime=0), "announces 6x5x4 = 120 bytes and has more"),
        (gzip.compress(b"", mtime=0), "starts with nothing"),
        (gzip.compress(GOOD[:6], mtime=0), "ends within its header, at byte 6"),
    ],
)
def test_each_malformation_has_its_own_message_with_the_files_name(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = write(tmp_path / "train-images-idx3-ubyte", content)
    with pytest.raises(DataError) as error:
        read_idx(path, dimensions=3)
    assert str(error.value).startswith("train-images-idx3-ubyte ")
    assert message in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone cannot be read: No such file"):
        read_idx(tmp_path / "gone", dimensions=1)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_header_that_announces_too_much_allocates_nothing(tmp_path: Path, pack: type[bytes]) -> None:
    path = write(tmp_path / "x", pack(b"\0\0\x08\x01" + struct.pack(">I", 2**31) + b"12345"))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"announces 2147483648 = 2147483648 bytes and has 5"):
            read_idx(path, dimensions=1)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
