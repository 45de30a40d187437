# SPDX-License-Identifier: Apache-2.0
"""IDX files, as MNIST and Fashion-MNIST come in -> images and their labels.

    offset 0  two zero bytes, the element type (0x08: unsigned byte), the number of dimensions
    offset 4  each dimension as a big-endian 32-bit number
    then      the elements, the last dimension fastest

A file may be compressed by gzip; its first bytes tell, not its name. Specification: http://yann.lecun.com/exdb/mnist
"""

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from latentwire_codec.images.geometry import Pixels
from latentwire_core.errors import DataError
from latentwire_train.data.folder import Problem, explain

_PIECE_BYTES = 1 << 20

MAX_ELEMENTS = 1 << 32
"""The most elements that are read; EMNIST, the largest set of this kind, has 640 million."""


@dataclass(frozen=True, eq=False)
class IdxImages:
    """Images of one size in memory, an `ImageSource`.

    Attributes:
        pixels: uint8 (N,H,W), 0 black to 255 white.
        labels: uint8 (N,), or None where there is no label file.
        files: the files that were read: the images, then the labels.
        problems: the files that are missing.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8] | None
    files: tuple[Path, ...]
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        """Map an index to the file's name and the index."""
        return f"{self.files[0].name}[{index}]"

    def read(self, index: int) -> Pixels:
        """Map an index to uint8 (H,W,3), grey in all three channels."""
        return np.repeat(self.pixels[index][:, :, None], 3, axis=2)

    def attributes(self, class_names: Sequence[str] | None = None) -> tuple[tuple[str, ...], npt.NDArray[np.int8]]:
        """Return one attribute per class: the names (K,), and int8 (N,K) with 1 for the image's class, else -1.

        Args:
            class_names: a name for each class; None names them `class 0` up to the largest label.

        Raises:
            DataError: there are no labels, or a label has no name.
        """
        if self.labels is None:
            raise DataError(f"{self.files[0].name} has no labels beside it; put {_label_name(self.files[0])} there")
        largest = int(self.labels.max())
        names = tuple(class_names) if class_names is not None else tuple(f"class {k}" for k in range(largest + 1))
        if largest >= len(names):
            raise DataError(f"label {largest} of {self.files[1].name} has no name; {len(names)} names are given")
        return names, np.where(self.labels[:, None] == np.arange(len(names)), 1, -1).astype(np.int8)


def scan_idx(folder: Path, split: str = "train") -> IdxImages:
    """Map a folder with MNIST's file names to the images of a split, and to their labels if there is a label file.

    The names are `SPLIT-images-idx3-ubyte` and `SPLIT-labels-idx1-ubyte`; `.idx` may stand for `-idx`, and `.gz` may
    follow. A file without `.gz` goes before one with it. A missing label file is reported.

    Args:
        folder: the folder that holds the files.
        split: `train`, or `t10k` for the test set.

    Raises:
        DataError: there are no images, `read_idx` refuses a file, or the numbers of labels and images differ.
    """
    images_path, labels_path = (_find(folder, f"{split}-{what}") for what in ("images?idx3", "labels?idx1"))
    if images_path is None:
        raise DataError(f"{folder} has no {split}-images-idx3-ubyte, with or without .gz; give the folder with it")
    pixels = read_idx(images_path, dimensions=3)
    if pixels.size == 0:
        raise DataError(f"{images_path.name} holds no pixels: its dimensions are {pixels.shape}; take another file")
    if labels_path is None:
        missing = Problem(_label_name(images_path), "is missing; the images have no labels")
        return IdxImages(pixels, None, (images_path,), (missing,))
    labels = read_idx(labels_path, dimensions=1)
    if len(labels) != len(pixels):
        raise DataError(
            f"{labels_path.name} has {len(labels)} labels for the {len(pixels)} images of {images_path.name}; "
            "take files of the same set"
        )
    return IdxImages(pixels, labels, (images_path, labels_path))


def read_idx(path: Path, *, dimensions: int) -> npt.NDArray[np.uint8]:
    """Map an IDX file of unsigned bytes, gzip or not, to uint8 with `dimensions` axes.

    Raises:
        DataError: it cannot be read, is damaged, holds another type or number of dimensions, is longer or shorter than
            its header says, or announces more than `MAX_ELEMENTS`.
    """
    name = path.name
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0":
                raise DataError(f"{name} starts with {magic.hex(' ') or 'nothing'}; an IDX file starts with 00 00")
            if magic[2] != 0x08:
                raise DataError(
                    f"{name} has elements of type 0x{magic[2]:02x}; only 0x08, unsigned bytes, are images or labels"
                )
            if magic[3] != dimensions:
                raise DataError(f"{name} has {magic[3]} dimensions; {dimensions} are needed: images 3, labels 1")
            header = file.read(4 * dimensions)
            if len(header) < 4 * dimensions:
                raise DataError(f"{name} ends within its header, at byte {4 + len(header)}; fetch it again")
            shape = np.frombuffer(header, ">u4").tolist()
            count = math.prod(shape)
            said = f"{name} announces {'x'.join(map(str, shape))} = {count} bytes"
            if count > MAX_ELEMENTS:
                raise DataError(f"{said}; at most {MAX_ELEMENTS} are read")
            # One byte more than announced reaches the end of a gzip stream, where the checksum is verified. read(n)
            # allocates n bytes first, and a header may announce any n: so the file is read in pieces.
            data = bytearray()
            while piece := file.read(min(_PIECE_BYTES, count + 1 - len(data))):
                data += piece
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} cannot be read: {explain(error)}; fetch it again") from error
    if len(data) != count:
        size = len(data) if len(data) < count else "more" if packed else path.stat().st_size - 4 - len(header)
        raise DataError(f"{said} and has {size}; fetch it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _find(folder: Path, stem: str) -> Path | None:
    """Return the first file of this stem, with the separators and suffixes in their order."""
    names = (f"{stem.replace('?', separator)}-ubyte{suffix}" for separator in "-." for suffix in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _label_name(images_path: Path) -> str:
    return images_path.name.replace("images", "labels").replace("idx3", "idx1")
