# SPDX-License-Identifier: Apache-2.0
"""A dataset of Hugging Face on this machine -> the images of its rows.

Parquet files with a column of images, a folder with `metadata.csv` or `metadata.jsonl`, and what `save_to_disk` wrote.
`datasets` reads them; it keeps a copy of parquet files in its own cache. Nothing is downloaded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from latentwire_core.errors import DataError
from latentwire_core.extras import install_hint
from latentwire_data.item import Item, described
from latentwire_data.places import place, read_bytes

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@dataclass
class Table:
    """The images of a dataset's rows.

    Attributes:
        location: the folder, the parquet file, or the URL of either.
        problems: empty: a row that cannot be read raises when it is.
        left_out: numbers and reasons of what was passed over; known after `items`.
    """

    location: str
    problems: Mapping[str, str] = field(default_factory=dict)
    left_out: str = ""

    def __getstate__(self) -> dict[str, Any]:
        """Leave the opened dataset behind: another process opens it again."""
        return {key: value for key, value in vars(self).items() if key != "_rows"}

    def items(self) -> Iterator[Item]:
        """Yield the images in the order of their rows; a key is the file's name, or `row-` and the row's number.

        Raises:
            DataError: `datasets` is not installed, or cannot read it; or it has no column of images, or several.
        """
        rows, image = self._rows
        without = 0
        seen: set[str] = set()
        for number, row in enumerate(rows):
            if row[image] is None:
                without += 1
                continue
            data, path = row[image]["bytes"], row[image]["path"]
            key = f"row-{number:09d}" if path is None or str(path) in seen else self._below(str(path))
            seen.add(str(path))
            size = Path(path).stat().st_size if data is None else len(data)
            yield Item(key, self.location, size, number, *described(row))
        self.left_out = f"{without} rows without an image" if without else ""

    def read(self, item: Item) -> bytes:
        """Return the bytes of an image; raises OSError."""
        rows, image = self._rows
        found = rows[item.position][image]
        data: bytes = read_bytes(found["path"]) if found["bytes"] is None else found["bytes"]
        return data

    def _below(self, path: str) -> str:
        """Map the path of a file to the path below the folder, with `/`; another path stays as it is."""
        try:
            return Path(path).relative_to(Path(self.location).absolute()).as_posix()
        except ValueError:
            return path

    @cached_property
    def _rows(self) -> tuple[Any, str]:
        """The rows, whose images are not decoded, and the name of the column of images."""
        try:
            import datasets
        except ImportError as error:
            raise DataError(f"{self.location} needs datasets: {install_hint('cache')}") from error
        rows = self._load(datasets)
        images = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Image)]
        if "image" in images:
            images = ["image"]
        if len(images) != 1:
            raise DataError(
                f"{self.location} has {len(images)} columns of images ({', '.join(rows.column_names)}); one is needed, "
                "or one named image"
            )
        return rows.cast_column(images[0], datasets.Image(decode=False)), images[0]

    def _load(self, datasets: Any) -> Any:
        is_folder = place(self.location).is_folder()
        datasets.disable_progress_bars()
        try:
            if is_folder and (Path(self.location) / "dataset_info.json").is_file():
                rows = datasets.load_from_disk(self.location)
            elif is_folder and any((Path(self.location) / name).is_file() for name in METADATA):
                rows = datasets.load_dataset("imagefolder", data_dir=self.location, split="train")
            else:
                files = f"{self.location}/**/*.parquet" if is_folder else self.location
                rows = datasets.load_dataset("parquet", data_files=files, split="train")
        except (ValueError, OSError, datasets.exceptions.DatasetGenerationError) as error:
            raise DataError(f"{self.location} cannot be read as a dataset: {error}") from error
        if isinstance(rows, datasets.DatasetDict):
            raise DataError(f"{self.location} has the splits {', '.join(rows)}; name the folder of one")
        return rows
