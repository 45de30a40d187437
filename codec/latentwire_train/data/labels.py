# SPDX-License-Identifier: Apache-2.0
"""A folder in CelebA's layout -> its images with their attributes, and what does not match, by name.

    ROOT/img_align_celeba/000001.jpg ...
    ROOT/list_attr_celeba.txt              or .csv; in ROOT/Anno/ too
    ROOT/list_eval_partition.txt           or .csv; in ROOT/Eval/ too; optional

The text form has a line with the number of rows, a line with the names, then rows `000001.jpg -1 1 1 ...`. The CSV form
has one header `image_id,Smiling,...` and rows `000001.jpg,-1,1,...`. The partition says 0 (train), 1 (validation) or 2
(test) for each file, in the same two forms, the text form without count and names.

Refused: a label file that cannot be read, a count that is no number, a header without names or with a name twice, a
first row whose length differs from the header's, no image with a label. Reported and skipped: any other damaged row, a
row without a file, a file without a row, two rows of one file that contradict each other. Reported only: a count that
differs from the number of rows, a row that is there twice, an image without a partition.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from latentwire_codec.images.files import ImageLimits
from latentwire_codec.images.geometry import Pixels
from latentwire_train.data.folder import (
    DATA_LIMITS,
    DataError,
    ImageFolder,
    Problem,
    Progress,
    describe,
    explain,
    scan_folder,
)

IMAGES = "img_align_celeba"
PARTITIONS = {"train": 0, "validation": 1, "test": 2}
UNKNOWN_PARTITION = -1

_Row = tuple[int, str, list[str]]  # line, file name, the columns after it


@dataclass(frozen=True)
class AttributeTable:
    """A label file.

    Attributes:
        attributes: the names of the A attributes.
        values: of each file name: A numbers, 1 where it has the attribute and -1 where not.
        problems: rows that were skipped, and a count that does not match.
    """

    attributes: tuple[str, ...]
    values: dict[str, tuple[int, ...]]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, eq=False)
class LabelledFolder:
    """Images with attributes, an `ImageSource`.

    Attributes:
        images: those with a row.
        attributes: the names of the A attributes.
        values: int8 (N,A), 1 or -1.
        partition: int8 (N,): 0, 1, 2, or -1 where the file has none for an image; None without a partition file.
        problems: all that was skipped, of files and of labels.
    """

    images: ImageFolder
    attributes: tuple[str, ...]
    values: npt.NDArray[np.int8]
    partition: npt.NDArray[np.int8] | None
    problems: tuple[Problem, ...]

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """An index -> the path relative to the folder of images."""
        return self.images.name(index)

    def read(self, index: int) -> Pixels:
        """An index -> uint8 (H,W,3) RGB; raises what `ImageFolder.read` raises."""
        return self.images.read(index)

    def indices(self, partition: str) -> list[int]:
        """`train`, `validation` or `test` -> the indices of its images; those without a partition are in none.

        Raises:
            DataError: there is no partition file.
            ValueError: there is no partition of that name.
        """
        if partition not in PARTITIONS:
            raise ValueError(f"partition is {partition!r}; it must be one of {', '.join(PARTITIONS)}")
        if self.partition is None:
            raise DataError("there is no list_eval_partition.txt or .csv beside the labels; split by hash instead")
        return [int(index) for index in np.flatnonzero(self.partition == PARTITIONS[partition])]


def scan_celeba(
    root: Path,
    *,
    min_side: int = 1,
    limits: ImageLimits = DATA_LIMITS,
    progress: Progress | None = None,
) -> LabelledFolder:
    """A folder in CelebA's layout -> its images that have labels.

    Args:
        root: the folder above `img_align_celeba`.
        min_side: as of `scan_folder`.
        limits: as of `scan_folder`.
        progress: called while headers are read.

    Raises:
        DataError: the folder of images or the label file is missing, the latter is there in two forms, or what the
            module's text says is refused.
    """
    folder = root / IMAGES
    if not folder.is_dir():
        raise DataError(f"{root} has no folder {IMAGES}; give the folder above it")
    if (folder / IMAGES).is_dir():
        folder /= IMAGES  # as some archives unpack
    table_path = _find(root, "list_attr_celeba", "Anno")
    if table_path is None:
        raise DataError(
            f"{root} has no list_attr_celeba.txt or .csv; put it there, or train on {folder} without labels"
        )
    table = read_attributes(table_path)
    images = scan_folder(folder, min_side=min_side, limits=limits, progress=progress)
    problems = [*table.problems, *images.problems]

    present = {item.path for item in images.items}
    refused = {problem.name for problem in images.problems}
    missing = [name for name in table.values if name not in present and name not in refused]
    problems += [Problem(name, f"has a row in {table_path.name} but no file in {IMAGES}") for name in missing]
    unlabelled = [name for name in (item.path for item in images.items) if name not in table.values]
    problems += [Problem(name, f"has no usable row in {table_path.name}") for name in unlabelled]
    items = tuple(item for item in images.items if item.path in table.values)
    if not items:
        raise DataError(
            f"none of the {len(images)} images in {folder} has a row in {table_path.name} "
            f"({describe(problems, 3)}); the names must agree, suffix included"
        )
    values = np.array([table.values[item.path] for item in items], np.int8)
    partition = None
    partition_path = _find(root, "list_eval_partition", "Eval")
    if partition_path is not None:
        parts, found = read_partition(partition_path)
        problems += found
        problems += [Problem(i.path, f"has no row in {partition_path.name}") for i in items if i.path not in parts]
        partition = np.array([parts.get(item.path, UNKNOWN_PARTITION) for item in items], np.int8)
    images = replace(images, items=items, problems=())
    return LabelledFolder(images, table.attributes, values, partition, tuple(problems))


def read_attributes(path: Path) -> AttributeTable:
    """A label file, `.txt` or `.csv` -> its attributes; see the module's text for what is refused and what reported.

    Raises:
        DataError: the file is refused; the message names the line.
    """
    lines = _lines(path)
    names, rows, announced = _csv_rows(path, lines) if path.suffix == ".csv" else _text_rows(path, lines)
    if not names:
        raise DataError(f"{path.name}: the header names no attribute; the names belong there, once each")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"{path.name}: the header names {', '.join(repeated)} twice; every attribute needs its own name"
        )
    problems: list[Problem] = []
    values: dict[str, tuple[int, ...]] = {}
    lines_of: dict[str, int] = {}
    contradicted: set[str] = set()
    count = 0
    for line, name, columns in rows:
        count += 1
        where = f"{path.name}:{line}"
        if len(columns) != len(names):
            said = f"{name} has {len(columns)} values for the {len(names)} attributes of the header"
            if count == 1:
                raise DataError(f"{where}: {said}; header and rows must agree")
            problems.append(Problem(where, said))
            continue
        strange = next((value for value in columns if value not in ("1", "-1", "+1")), None)
        if strange is not None:
            problems.append(Problem(where, f"{name} has the value {strange!r}; attributes are 1 or -1"))
            continue
        numbers = tuple(map(int, columns))
        if name not in lines_of:
            lines_of[name], values[name] = line, numbers
        elif name not in contradicted and numbers == values[name]:
            problems.append(Problem(where, f"repeats {name} of line {lines_of[name]}"))
        else:
            contradicted.add(name)
            problems.append(Problem(where, f"contradicts line {lines_of[name]} about {name}; neither is used"))
    if announced is not None and announced != count:
        problems.append(Problem(f"{path.name}:1", f"announces {announced} rows; there are {count}"))
    for name in contradicted:
        del values[name]
    if not values:
        raise DataError(f"{path.name} has no usable row ({describe(problems, 3) or 'none was found'})")
    return AttributeTable(names, values, tuple(problems))


def read_partition(path: Path) -> tuple[dict[str, int], list[Problem]]:
    """A partition file, `.txt` or `.csv` -> 0, 1 or 2 of each file name, and the rows that were skipped.

    Raises:
        DataError: the file cannot be read, or is a `.csv` without the columns `image_id` and `partition`.
    """
    lines = _lines(path)
    rows: Iterator[_Row]
    if path.suffix == ".csv":
        names, rows, _ = _csv_rows(path, lines)
        if names != ("partition",):
            raise DataError(
                f"{path.name}:1: the columns are image_id, {', '.join(names)}; image_id, partition are needed"
            )
    else:
        rows = ((number, *_split(line)) for number, line in enumerate(lines, 1) if line.strip())
    parts: dict[str, int] = {}
    problems: list[Problem] = []
    for line, name, columns in rows:
        value = columns[0] if len(columns) == 1 else None
        if value not in ("0", "1", "2"):
            reason = f"{name} has the partition {' '.join(columns)!r}; it is 0, 1 or 2"
        elif parts.setdefault(name, int(value)) != int(value):
            reason = f"contradicts an earlier line about {name}; the first is used"
        else:
            continue
        problems.append(Problem(f"{path.name}:{line}", reason))
    return parts, problems


def _text_rows(path: Path, lines: list[str]) -> tuple[tuple[str, ...], Iterator[_Row], int]:
    """The lines of a text file -> the header's names, the rows, and the number of rows that is announced."""
    count = lines[0].strip() if lines else ""
    if not (count.isascii() and count.isdigit()):
        raise DataError(
            f"{path.name}:1: {count[:40]!r} is not the number of rows; a line with it comes before the names"
        )
    if len(lines) < 2:
        raise DataError(f"{path.name} ends after line 1; the names of the attributes belong on line 2")
    rows = ((number, *_split(line)) for number, line in enumerate(lines[2:], 3) if line.strip())
    return tuple(lines[1].split()), rows, int(count)


def _csv_rows(path: Path, lines: list[str]) -> tuple[tuple[str, ...], Iterator[_Row], None]:
    """The lines of a CSV file -> the header's names after `image_id`, and the rows."""
    try:
        table = list(csv.reader(lines, strict=True))
    except csv.Error as error:
        raise DataError(f"{path.name} is not CSV: {error}; separate by commas") from error
    header = [name.strip() for name in table[0]] if table else []
    if not header or header[0] != "image_id":
        found = header[0][:40] if header else ""
        raise DataError(f"{path.name}:1: the first column is {found!r}; it must be image_id, the name of the file")
    rows = (
        (number, row[0].strip(), [value.strip() for value in row[1:]]) for number, row in enumerate(table[1:], 2) if row
    )
    return tuple(header[1:]), rows, None


def _split(line: str) -> tuple[str, list[str]]:
    name, *columns = line.split()
    return name, columns


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {explain(error)}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not text in UTF-8 (byte {error.start}); save it so") from error


def _find(root: Path, stem: str, subfolder: str) -> Path | None:
    found = [folder / f"{stem}{suffix}" for folder in (root, root / subfolder) for suffix in (".txt", ".csv")]
    found = [path for path in found if path.is_file()]
    if len(found) > 1:
        names = " and ".join(path.relative_to(root).as_posix() for path in found)
        raise DataError(f"{root} has {names}; leave one, since they may differ")
    return found[0] if found else None
