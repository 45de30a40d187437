# SPDX-License-Identifier: Apache-2.0
"""A folder -> the image files below it, each with the key under which what was measured of it is kept."""

from dataclasses import dataclass
from pathlib import Path

from latentwire_core.formats import IMAGE_SUFFIXES


@dataclass(frozen=True)
class ImageFile:
    """A file that is an image by its name.

    Attributes:
        path: where it is.
        name: its path below the folder, with slashes.
    """

    path: Path
    name: str

    @property
    def key(self) -> str:
        """Name, bytes and time of change: a file that changed is measured again."""
        status = self.path.stat()
        return f"{self.name} {status.st_size} {status.st_mtime_ns}"


def image_files(folder: Path) -> list[ImageFile]:
    """Map a folder to its image files and those of the folders in it, in the order of their names.

    Raises:
        FileNotFoundError: there is none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not paths:
        raise FileNotFoundError(f"no image in {folder}; files that end in {', '.join(sorted(IMAGE_SUFFIXES))} are read")
    return [ImageFile(path, path.relative_to(folder).as_posix()) for path in paths]
