# SPDX-License-Identifier: Apache-2.0
"""A seed and a number of faces -> a folder in CelebA's layout, pictures and labels, as `scan_celeba` reads it.

    ROOT/DRAWN.txt                  says that the faces are drawn, and with which options
    ROOT/img_align_celeba/000001.png ...
    ROOT/list_eval_partition.txt    of ten faces in a row eight for training, one for validation, one for the test
    ROOT/list_attr_celeba.txt       written last: with it, all pictures are there

A stopped call goes on when it is repeated. A face's picture, labels and part depend on the seed and its number alone,
so a larger count adds faces and changes no face.
"""

from collections.abc import Callable
from pathlib import Path

from latentwire_codec.images.writing import write_image
from latentwire_core.errors import DataError
from latentwire_core.files import write_whole
from latentwire_core.formats import ImageFormat
from latentwire_lab.faces.drawing import REVISION, check_size, draw
from latentwire_lab.faces.face import ATTRIBUTES, NAMES, random_face
from latentwire_train.data.celeba import IMAGES

Progress = Callable[[int, int], None]
"""Called with (done, total) in pictures."""

NOTE, PARTITION, LABELS = "DRAWN.txt", "list_eval_partition.txt", "list_attr_celeba.txt"
MAX_COUNT = 999_999  # file names have six digits
_PARTS = (0, 0, 0, 0, 0, 0, 0, 0, 1, 2)


def write_folder(
    root: Path,
    count: int,
    size: int = 64,
    seed: int = 0,
    *,
    image_format: ImageFormat = ImageFormat.PNG,
    progress: Progress | None = None,
) -> int:
    """Draw faces 0 to `count` - 1 of a seed into a folder; return the number of faces that were not there yet.

    Args:
        root: the folder; made if need be.
        count: number of faces, 1..999999.
        size: side of a picture in pixels, 32..512.
        seed: seed of the faces, 0 <= seed < 2**64.
        image_format: PNG or JPEG.
        progress: called after each picture, new or not.

    Raises:
        DataError: `root` holds other files, faces of other options, or more than `count` faces.
        ValueError: a number or the format is out of range.
        OSError: a file cannot be written.
    """
    if not 1 <= count <= MAX_COUNT:
        raise ValueError(f"count is {count}; it must be 1..{MAX_COUNT}")
    if image_format not in (ImageFormat.PNG, ImageFormat.JPEG):
        raise ValueError(f"image_format is {image_format.pillow_name}; it must be PNG or JPEG")
    check_size(size)
    random_face(seed, 0)  # refuses a bad seed now
    names = [f"{n + 1:06d}{image_format.suffix}" for n in range(count)]
    note = _note(size, seed, image_format)
    images = root / IMAGES
    _check(root, note, names)
    # The note comes first: a folder without it is not ours.
    root.mkdir(parents=True, exist_ok=True)
    write_whole(root / NOTE, note.encode())
    images.mkdir(exist_ok=True)
    # There are no labels until the end: half of the labels would look like all.
    for name in (LABELS, PARTITION):
        (root / name).unlink(missing_ok=True)
    drawn = 0
    rows = [f"{count}", f"{' '.join(NAMES)} "]
    for n, name in enumerate(names):
        face = random_face(seed, n)
        rows.append(" ".join([name, *(" 1" if attribute in face else "-1" for attribute in NAMES)]))
        if not (images / name).exists():
            write_whole(images / name, write_image(draw(face, size), image_format))
            drawn += 1
        if progress is not None:
            progress(n + 1, count)
    parts = "".join(f"{name} {_PARTS[n % 10]}\n" for n, name in enumerate(names))
    write_whole(root / PARTITION, parts.encode())
    write_whole(root / LABELS, ("\n".join(rows) + "\n").encode())
    return drawn


def _note(size: int, seed: int, image_format: ImageFormat) -> str:
    rates = "\n".join(f"    {part.name:<20}{part.rate:4.0%}" for part in sorted(ATTRIBUTES, key=lambda part: part.name))
    return f"""\
These faces are drawn. There is no photograph of a person among them.

Every picture and every label was made from random numbers by `latentwire draw-faces`. Layout and names are those of
CelebA; nothing else here has to do with it. The labels are the truth: what is drawn follows from them.

Drawn as revision {REVISION}, seed {seed}, size {size}, format {image_format.pillow_name}.

Share of the faces that have each attribute, in the long run:

{rates}

They are independent of one another, but for: Bald goes with no hair colour, Bangs, Straight_Hair or Wavy_Hair; a face
has one hair colour at most; Straight_Hair excludes Wavy_Hair; Gray_Hair excludes Young; Wearing_Lipstick excludes
Mustache and Goatee. Nothing tells men from women.
"""


def _check(root: Path, note: str, names: list[str]) -> None:
    """Refuse a folder that these faces cannot be written to."""
    if not root.exists() or (root.is_dir() and not any(root.glob("[!.]*"))):
        return
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give a new or an empty one")
    path = root / NOTE
    if not path.is_file():
        raise DataError(f"{root} holds other things than drawn faces (it has no {NOTE}); give a new or an empty folder")
    found = path.read_text("utf-8", "replace")
    if found != note:
        drawn = next((line for line in found.splitlines() if line.startswith("Drawn as")), f"an unknown {NOTE}")
        wanted = next(line for line in note.splitlines() if line.startswith("Drawn as"))
        raise DataError(
            f"{root} holds other faces ({drawn!r}, not {wanted!r}); repeat its options, or give a new folder"
        )
    others = sorted({file.name for file in (root / IMAGES).glob("[!.]*")} - set(names))
    if others:
        raise DataError(
            f"{root / IMAGES} holds {others[-1]}, which is not among the first {len(names)} faces; "
            "ask for at least as many as are there, or give a new folder"
        )
