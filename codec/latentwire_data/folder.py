# SPDX-License-Identifier: Apache-2.0
"""A folder, here or behind a URL -> its image files, with the captions beside them."""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from latentwire_core.errors import DataError
from latentwire_core.formats import IMAGE_SUFFIXES
from latentwire_data.item import Item
from latentwire_data.places import Place, read_bytes


@dataclass
class Folder:
    """The image files of a folder, nested to any depth.

    Attributes:
        place: the folder.
        caption_suffixes: with their dots; the first file beside an image with its name and one of them is its caption.
        problems: name of what could not be looked at -> why; known after `items`.
        left_out: numbers and reasons of what was passed over; known after `items`.
    """

    place: Place
    caption_suffixes: Sequence[str]
    problems: Mapping[str, str] = field(default_factory=dict)
    left_out: str = ""

    def items(self) -> Iterator[Item]:
        """Yield the images, in the order of their paths.

        Raises:
            DataError: a caption is not UTF-8, or cannot be read.
        """
        found = self.place.listing(IMAGE_SUFFIXES | set(self.caption_suffixes))
        self.problems, self.left_out = found.problems, found.left_out
        for path, num_bytes in found.sizes.items():
            stem, suffix = posixpath.splitext(path)
            if suffix.lower() not in IMAGE_SUFFIXES:
                continue
            beside = [stem + each for each in self.caption_suffixes if stem + each in found.sizes][:1]
            captions = [read_caption(self.place.join(each)) for each in beside]
            yield Item(
                key=path,
                location=self.place.join(path),
                num_bytes=num_bytes,
                caption=captions[0] if captions else None,
                sidecars=tuple(map(self.place.join, beside)),
            )

    def read(self, item: Item) -> bytes:
        """Return the bytes of an image file; raises OSError."""
        return read_bytes(item.location)


def read_caption(location: str) -> str:
    """Map a text file to its text, without the white space around it.

    Raises:
        DataError: it is not UTF-8, or cannot be read.
    """
    try:
        return read_bytes(location).decode("utf-8-sig").strip()
    except OSError as error:
        raise DataError(f"the caption {location} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"the caption {location} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
