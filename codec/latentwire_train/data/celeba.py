# SPDX-License-Identifier: Apache-2.0
"""A folder in CelebA's layout -> its images with their attributes, and the rows and files that do not match.

    ROOT/img_align_celeba/000001.jpg ...
    ROOT/list_attr_celeba.txt              or .csv; in ROOT/Anno/ too
    ROOT/list_eval_partition.txt           or .csv; in ROOT/Eval/ too; optional

The text form has a line with the number of rows, a line with the names, then rows `000001.jpg -1 1 1 ...`. The CSV form
has one header `image_id,Smiling,...` and rows `000001.jpg,-1,1,...`. The partition says 0 (train), 1 (validation) or 2
(test) for each file, in the same two forms, the text form without count and names.

A folder is refused for a label file that cannot be read, a count that is not a number, a header without names or with
a name twice, a first row whose length differs from the header's, and where no image has a label. Skipped and reported
are all other damaged rows, rows without a file, files without a row, and two rows of one file that contradict each
other. Only reported are a count that differs from the number of rows, a repeated row, and an image without a partition.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentwire_core.errors import DataError
from latentwire_train.data.folder import ImageFolder, Problem, describe, explain, scan_images

IMAGES = "img_align_celeba"
PARTITIONS = {"train": 0, "validation": 1, "test": 2}
UNKNOWN_PARTITION = -1

_Rows = Iterator[tuple[int, list[str]]]  # line, columns


class AttributeTable(NamedTuple):
    """A label file: A names, and file name -> A numbers, 1 for an attribute that the image has and -1 for the others.

    `problems` are the rows that were skipped, and a count that does not match.
    """

    attributes: tuple[str, ...]
    values: dict[str, tuple[int, ...]]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledFolder(ImageFolder):
    """The images that have a row in the label file, with attributes.

    Attributes:
        attributes: the names of the A attributes.
        values: int8 (N,A), 1 or -1.
        partition: int8 (N,): 0, 1, 2, or -1 for an image without a row; None without a partition file.
    """

    attributes: tuple[str, ...]
    values: npt.NDArray[np.int8]
    partition: npt.NDArray[np.int8] | None

    def indices(self, partition: str) -> list[int]:
        """Map `train`, `validation` or `test` to the indices of its images; an image without a partition has no part.

        Raises:
            DataError: there is no partition file.
            ValueError: there is no partition of that name.
        """
        if partition not in PARTITIONS:
            raise ValueError(f"partition is {partition!r}; it must be one of {', '.join(PARTITIONS)}")
        if self.partition is None:
            raise DataError("there is no list_eval_partition.txt or .csv beside the labels; split by hash instead")
        return [int(index) for index in np.flatnonzero(self.partition == PARTITIONS[partition])]


def scan_celeba(root: Path, *, min_side: int = 1) -> LabelledFolder:
    """Map the folder above `img_align_celeba` to its images that have labels and sides of `min_side` pixels or more.

    Raises:
        DataError: the folder of images or the label file is missing, the label file is there in two forms, or the
            folder is refused for a reason in the module's text.
    """
    folder = root / IMAGES
    if not folder.is_dir():
        raise DataError(f"{root} has no folder {IMAGES}; give the folder above it")
    if (folder / IMAGES).is_dir():
        folder /= IMAGES  # as some archives unpack
    table_path = _find(root, "list_attr_celeba", "Anno")
    if table_path is None:
        raise DataError(f"{root} has no list_attr_celeba.txt or .csv; put it there, or train on {folder} alone")
    table = read_attributes(table_path)
    images = scan_images(folder, min_side=min_side)
    known = {item.path for item in images.items} | {problem.name for problem in images.problems}
    items = tuple(item for item in images.items if item.path in table.values)
    problems = [*table.problems, *images.problems]
    missing = f"has a row in {table_path.name} but no file in {IMAGES}"
    problems += [Problem(name, missing) for name in table.values if name not in known]
    unlabelled = f"has no usable row in {table_path.name}"
    problems += [Problem(item.path, unlabelled) for item in images.items if item.path not in table.values]
    if not items:
        raise DataError(
            f"none of the {len(images)} images in {folder} has a row in {table_path.name} "
            f"({describe(problems, 3)}); the names must agree, suffix included"
        )
    partition = None
    partition_path = _find(root, "list_eval_partition", "Eval")
    if partition_path is not None:
        parts, found = read_partition(partition_path)
        problems += found
        problems += [Problem(i.path, f"has no row in {partition_path.name}") for i in items if i.path not in parts]
        partition = np.array([parts.get(item.path, UNKNOWN_PARTITION) for item in items], np.int8)
    values = np.array([table.values[item.path] for item in items], np.int8)
    return LabelledFolder(
        images.source,
        items,
        tuple(problems),
        left_out=images.left_out,
        attributes=table.attributes,
        values=values,
        partition=partition,
    )


def read_attributes(path: Path) -> AttributeTable:
    """Map a label file, `.txt` or `.csv`, to its attributes; the module's text says what is refused or reported.

    Raises:
        DataError: the file is refused; the message names the line.
    """
    names, rows, announced = _read(path, header=True)
    if not names:
        raise DataError(f"{path.name}: the header names no attribute; the names belong there, once each")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path.name}: the header names {', '.join(repeated)} twice; each needs a name of its own")
    problems: list[Problem] = []
    values: dict[str, tuple[int, ...]] = {}
    lines_of: dict[str, int] = {}
    contradicted: set[str] = set()
    count = 0
    for count, (line, (name, *columns)) in enumerate(rows, 1):
        strange = next((value for value in columns if value not in ("1", "-1", "+1")), None)
        if len(columns) != len(names):
            reason = f"{name} has {len(columns)} values for the {len(names)} attributes of the header"
            if count == 1:
                raise DataError(f"{path.name}:{line}: {reason}; header and rows must agree")
        elif strange is not None:
            reason = f"{name} has the value {strange!r}; attributes are 1 or -1"
        elif name not in lines_of:
            lines_of[name], values[name] = line, tuple(map(int, columns))
            continue
        elif name not in contradicted and tuple(map(int, columns)) == values[name]:
            reason = f"repeats {name} of line {lines_of[name]}"
        else:
            contradicted.add(name)
            reason = f"contradicts line {lines_of[name]} about {name}; neither is used"
        problems.append(Problem(f"{path.name}:{line}", reason))
    if announced not in (None, count):
        problems.append(Problem(f"{path.name}:1", f"announces {announced} rows; there are {count}"))
    for name in contradicted:
        del values[name]
    if not values:
        raise DataError(f"{path.name} has no usable row ({describe(problems, 3) or 'it has no rows'})")
    return AttributeTable(names, values, tuple(problems))


def read_partition(path: Path) -> tuple[dict[str, int], list[Problem]]:
    """Map a partition file, `.txt` or `.csv`, to 0, 1 or 2 for each file name, and the rows that were skipped.

    Raises:
        DataError: the file cannot be read, or is a `.csv` without the columns `image_id` and `partition`.
    """
    names, rows, _ = _read(path, header=False)
    if path.suffix == ".csv" and names != ("partition",):
        raise DataError(f"{path.name}:1: the columns are image_id, {', '.join(names)}; image_id, partition are needed")
    parts: dict[str, int] = {}
    problems: list[Problem] = []
    for line, (name, *columns) in rows:
        value = " ".join(columns)
        if value not in ("0", "1", "2"):
            reason = f"{name} has the partition {value!r}; it is 0, 1 or 2"
        elif parts.setdefault(name, int(value)) != int(value):
            reason = f"contradicts an earlier line about {name}; the first is used"
        else:
            continue
        problems.append(Problem(f"{path.name}:{line}", reason))
    return parts, problems


def _read(path: Path, header: bool) -> tuple[tuple[str, ...], _Rows, int | None]:
    """Map a file to the names in its header, its rows, and their announced number; a CSV file always has a header."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {explain(error)}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not text in UTF-8 (byte {error.start}); save it so") from error
    if path.suffix == ".csv":
        try:
            table = [[cell.strip() for cell in row] for row in csv.reader(lines, strict=True)]
        except csv.Error as error:
            raise DataError(f"{path.name} is not CSV: {error}; separate by commas") from error
        first, *names = (table and table[0]) or [""]
        if first != "image_id":
            raise DataError(f"{path.name}:1: the first column is {first[:40]!r}; it must be image_id, the file's name")
        return tuple(names), ((number, row) for number, row in enumerate(table[1:], 2) if row), None
    begin = 2 if header else 0
    rows = ((number, line.split()) for number, line in enumerate(lines[begin:], begin + 1) if line.strip())
    if not header:
        return (), rows, None
    count = lines[0].strip() if lines else ""
    if not (count.isascii() and count.isdigit()):
        raise DataError(f"{path.name}:1: {count[:40]!r} is not the number of rows, which comes before the names")
    if len(lines) < 2:
        raise DataError(f"{path.name} ends after line 1; the names of the attributes belong on line 2")
    return tuple(lines[1].split()), rows, int(count)


def _find(root: Path, stem: str, subfolder: str) -> Path | None:
    found = [folder / f"{stem}{suffix}" for folder in (root, root / subfolder) for suffix in (".txt", ".csv")]
    found = [path for path in found if path.is_file()]
    if len(found) > 1:
        names = " and ".join(path.relative_to(root).as_posix() for path in found)
        raise DataError(f"{root} has {names}, which may differ; remove all but one")
    return found[0] if found else None
