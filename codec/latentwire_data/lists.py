# SPDX-License-Identifier: Apache-2.0
"""A list of files -> their images: lines with a path or a URL each, or JSON objects.

    photos/cat.jpg
    {"image": "photos/cat.jpg", "caption": "a cat", "label": 3}

A relative path is below the folder of the list. An object names its file by `image`, `file_name`, `image_path` or
`path`, and its text by `caption`, `text` or `prompt`.
"""

import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from latentwire_core.errors import DataError
from latentwire_data.item import Item, described
from latentwire_data.places import Place, place, read_bytes, size_of

FILES = ("image", "file_name", "image_path", "path")


@dataclass
class FileList:
    """The images that a list names.

    Attributes:
        location: the path or the URL of the list.
        problems: the name of a file that cannot be looked at -> why; known after `items`.
        left_out: empty: every line counts.
    """

    location: str
    problems: Mapping[str, str] = field(default_factory=dict)
    left_out: str = ""

    def items(self) -> Iterator[Item]:
        """Yield the images in the order of their keys; a key is the file's name as the list has it.

        Raises:
            DataError: the list cannot be read, or a line of it; or it names a file twice.
        """
        try:
            text = read_bytes(self.location).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"the list {self.location} cannot be read as UTF-8 text: {error}") from error
        folder = place(posixpath.dirname(self.location) or ".")
        problems: dict[str, str] = {}
        found: dict[str, Item] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            item = self._item(line.strip(), number, folder, problems)
            if item is None:
                continue
            if item.key in found:
                raise DataError(f"line {number} of {self.location} names {item.key} again; name each file once")
            found[item.key] = item
        self.problems = problems
        yield from (found[key] for key in sorted(found))

    def read(self, item: Item) -> bytes:
        """Return the bytes of an image file; raises OSError."""
        return read_bytes(item.location)

    def _item(self, line: str, number: int, folder: Place, problems: dict[str, str]) -> Item | None:
        about = self._object(line, number) if line.startswith("{") else {"image": line}
        name = next((about[key] for key in FILES if isinstance(about.get(key), str)), None)
        if name is None:
            raise DataError(f"line {number} of {self.location} names no file; set one of {', '.join(FILES)}")
        location = folder.join(name)
        try:
            num_bytes = size_of(location)
        except OSError as error:
            problems[name] = f"cannot be read: {error.strerror or error}"
            return None
        caption, label = described(about)
        return Item(name, location, num_bytes, caption=caption, label=label)

    def _object(self, line: str, number: int) -> dict[str, Any]:
        try:
            about = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"line {number} of {self.location} is no JSON: {error}") from error
        assert isinstance(about, dict)  # it begins with a brace
        return about
