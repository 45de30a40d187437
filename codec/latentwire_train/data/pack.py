# SPDX-License-Identifier: Apache-2.0
"""A folder of images -> one file of re-encoded images that fits where a folder does not, and back to a source.

The file is an uncompressed `.npz` with two arrays, so that numpy and Pillow are enough to read it:

    index  uint8 (J,)  JSON in UTF-8: {"format": "latentwire-pack", "version": 1, "encoding": "...",
                        "source_digest": "...", "images": [{"path", "start", "end", "width", "height", "sha256",
                        "source_bytes", "source_sha256"}, ...]}
    data   uint8 (D,)  the image files one after another; number k is data[start:end], and sha256 is over those bytes

    pack = numpy.load("photos.npz")
    data, index = pack["data"], json.loads(pack["index"].tobytes())
    entry = index["images"][0]
    image = PIL.Image.open(io.BytesIO(data[entry["start"] : entry["end"]].tobytes())).convert("RGB")

`source_digest` is the manifest digest (see manifest.py) of the original files, so that a run on the pack names the data
it came from. The same images and options give the same bytes.
"""

import hashlib
import io
import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from latentwire_codec.images.files import read_image, write_image
from latentwire_codec.images.geometry import Pixels, resize_to_cover
from latentwire_core.errors import ImageError
from latentwire_core.formats import ImageFormat
from latentwire_train.data.folder import DATA_LIMITS, DataError, ImageFolder, Problem, Progress, explain
from latentwire_train.data.loading import Ledger, Report
from latentwire_train.data.manifest import Manifest, ManifestEntry

FORMAT, VERSION = "latentwire-pack", 1
_CHUNK = 32


@dataclass(frozen=True)
class PackReport:
    """What was packed.

    Attributes:
        images: in the file.
        size_bytes: of the file.
        source_digest: the manifest digest of the originals.
        problems: damaged images that were left out.
    """

    images: int
    size_bytes: int
    source_digest: str
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class PackOptions:
    """How images are stored.

    Attributes:
        image_format: that they are re-encoded in; None keeps each file's own bytes.
        quality: 1..100, or None for the format's default; PNG has none.
        short_side: larger images are scaled down (Lanczos) to this shorter side in pixels; None keeps their size.

    Raises:
        ValueError: the options exclude each other or are out of range.
    """

    image_format: ImageFormat | None = ImageFormat.WEBP
    quality: int | None = None
    short_side: int | None = None

    def __post_init__(self) -> None:
        if self.image_format is None and (self.quality is not None or self.short_side is not None):
            raise ValueError("quality and short_side need an image_format; files that are kept are not re-encoded")
        if self.quality is not None and (self.image_format is ImageFormat.PNG or not 1 <= self.quality <= 100):
            raise ValueError(f"quality is {self.quality}; it must be 1..100, and PNG has none")
        if self.short_side is not None and self.short_side < 1:
            raise ValueError(f"short_side is {self.short_side}; it must be >= 1")

    def __str__(self) -> str:
        if self.image_format is None:
            return "as it was"
        quality = "" if self.image_format is ImageFormat.PNG else f", quality {self.quality or 'default'}"
        scaled = "" if self.short_side is None else f", shorter side <= {self.short_side}"
        return f"{self.image_format.pillow_name}{quality}{scaled}"


def pack(
    folder: ImageFolder,
    out_file: Path,
    options: PackOptions | None = None,
    *,
    max_bytes: int | None = None,
    max_bad_share: float = 0.01,
    threads: int | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> PackReport:
    """A folder of images -> one file, written as a whole or not at all.

    Args:
        folder: the images.
        out_file: its name should end in `.npz`.
        options: how to store; None for WebP of the default quality at full size.
        max_bytes: of image data; more is an error as soon as it is reached, None for no limit.
        max_bad_share: of damaged images that are left out before it is an error; one always may.
        threads: that decode and encode at once; None for one per processor.
        progress: called after each image.
        report: called once for each damaged image; None logs a warning.

    Raises:
        DataError: too many images are damaged, `max_bytes` is exceeded, or the file cannot be written.
    """
    options = options or PackOptions()
    ledger = Ledger(folder, max_bad_share, report)
    entries: list[dict[str, Any]] = []
    sources: list[ManifestEntry] = []
    data = io.BytesIO()
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        # In chunks, or all that is packed would wait in memory beside `data`.
        for first in range(0, len(folder), _CHUNK):
            chunk = range(first, min(first + _CHUNK, len(folder)))
            for index, packed in zip(
                chunk, pool.map(lambda index: _pack_one(folder, index, options), chunk), strict=True
            ):
                if isinstance(packed, str):
                    ledger.note([(index, packed)])
                else:
                    source, stored, (height, width) = packed
                    start = data.tell()
                    data.write(stored)
                    sources.append(source)
                    entries.append(
                        {
                            "path": source.path,
                            "start": start,
                            "end": data.tell(),
                            "width": width,
                            "height": height,
                            "sha256": hashlib.sha256(stored).hexdigest(),
                            "source_bytes": source.size_bytes,
                            "source_sha256": source.sha256,
                        }
                    )
                if max_bytes is not None and data.tell() > max_bytes:
                    raise DataError(
                        f"the pack exceeds {max_bytes} bytes after {index + 1} of {len(folder)} images ({options}); "
                        "take a lower quality or a smaller shorter side"
                    )
                if progress is not None:
                    progress(index + 1, len(folder))
    if not entries:
        raise DataError(f"no image of {folder.root} can be decoded; there is nothing to pack")
    digest = Manifest.of(sources).digest
    header = {
        "format": FORMAT,
        "version": VERSION,
        "encoding": str(options),
        "source_digest": digest,
        "images": entries,
    }
    size_bytes = _write(out_file, json.dumps(header).encode(), data)
    return PackReport(len(entries), size_bytes, digest, ledger.problems)


def _pack_one(
    folder: ImageFolder, index: int, options: PackOptions
) -> tuple[ManifestEntry, bytes, tuple[int, int]] | str:
    """An index -> the original's entry, the bytes to store and their (height, width); or why it cannot be used."""
    try:
        original = (folder.root / folder.items[index].path).read_bytes()
        pixels = read_image(original, folder.limits)
        stored = original
        if options.image_format is not None:
            height, width = pixels.shape[:2]
            if options.short_side is not None and min(height, width) > options.short_side:
                scale = options.short_side / min(height, width)
                pixels = resize_to_cover(pixels, round(width * scale), round(height * scale))
            stored = write_image(pixels, options.image_format, options.quality)
    except (ImageError, OSError) as error:
        return explain(error)
    entry = ManifestEntry(folder.items[index].path, len(original), hashlib.sha256(original).hexdigest())
    return entry, stored, (pixels.shape[0], pixels.shape[1])


def _write(out_file: Path, index: bytes, data: io.BytesIO) -> int:
    """An index and data -> a file, and its size; it appears under its name when it is complete."""
    partial = out_file.with_name(f".{out_file.name}.{os.getpid()}.partial")
    try:
        try:
            with partial.open("wb") as file:
                np.savez(file, index=np.frombuffer(index, np.uint8), data=np.frombuffer(data.getbuffer(), np.uint8))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(out_file)
        finally:
            partial.unlink(missing_ok=True)
        return out_file.stat().st_size
    except OSError as error:
        raise DataError(f"{out_file} cannot be written: {explain(error)}; give a folder that can be") from error


@dataclass(frozen=True)
class PackedItem:
    """One image of a pack.

    Attributes:
        path: of the original, relative to its root.
        width: as stored, in pixels.
        height: likewise.
        start: of its bytes in the data.
        end: of its bytes, excluded.
    """

    path: str
    width: int
    height: int
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class PackedImages:
    """The images of a pack in memory, still encoded; an `ImageSource`.

    Attributes:
        items: in the order of packing.
        data: uint8 (D,), the image files one after another.
        source_digest: the manifest digest of the originals.
        encoding: how they were stored, in words.
    """

    items: tuple[PackedItem, ...]
    data: npt.NDArray[np.uint8]
    source_digest: str
    encoding: str

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """An index -> the original's path relative to its root."""
        return self.items[index].path

    def encoded(self, index: int) -> bytes:
        """An index -> the image file's bytes."""
        item = self.items[index]
        return self.data[item.start : item.end].tobytes()

    def read(self, index: int) -> Pixels:
        """An index -> uint8 (H,W,3) RGB; raises ImageError where it is damaged."""
        return read_image(self.encoded(index), DATA_LIMITS)


def open_pack(path: Path, *, min_side: int = 1) -> tuple[PackedImages, tuple[Problem, ...]]:
    """A pack -> its images, and by name those that are smaller than `min_side` pixels; every SHA-256 is verified.

    Raises:
        DataError: it is no pack, of another version, damaged, or has no image of that size.
    """
    try:
        # Opened here, because np.load leaves a file that is no archive to the garbage collector.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            data = np.asarray(arrays["data"])
            index = json.loads(arrays["index"].tobytes())
        if index["format"] != FORMAT or index["version"] != VERSION:
            raise DataError(
                f"{path.name} is {index['format']!r} {index['version']!r}; {FORMAT!r} {VERSION} is read here"
            )
        items: list[PackedItem] = []
        problems: list[Problem] = []
        for entry in index["images"]:
            item = PackedItem(*(entry[key] for key in ("path", "width", "height", "start", "end")))
            digest = hashlib.sha256(data[item.start : item.end].tobytes()).hexdigest()
            if not 0 <= item.start < item.end <= len(data) or digest != entry["sha256"]:
                raise DataError(
                    f"{path.name} is damaged: the SHA-256 of {item.path} does not match; pack or copy it again"
                )
            if min(item.width, item.height) < min_side:
                reason = f"is {item.width}x{item.height}; each side must be at least {min_side} px"
                problems.append(Problem(item.path, reason))
            else:
                items.append(item)
        found = PackedImages(tuple(items), data, index["source_digest"], index["encoding"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path.name} is not a pack, or is damaged: {explain(error)}; write it with pack()") from error
    if not items:
        raise DataError(f"{path.name} has no image of at least {min_side} px; pack larger ones")
    return found, tuple(problems)
