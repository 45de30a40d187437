# SPDX-License-Identifier: Apache-2.0
"""A PIL image arrives as its own file would, decoded or not, from a path or from memory; an edited one as it looks."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from latentwire_client._images import to_file
from latentwire_codec.images.files import read_image
from latentwire_core.colour.code_points import adobe_rgb
from latentwire_core.errors import ImageError
from tests.image_files import (
    RAMP,
    SIDE,
    avif_of,
    bmp,
    chunk,
    encode,
    gif_of_a_part,
    grey_tiff,
    twelve_bits,
    with_chunks,
)


def photo(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).convert(mode)


def png(depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def shallow_png(bits: int, key: int) -> bytes:
    """Grey levels 0, 1, 2 ... of `bits` bits; those of the key are transparent."""
    levels = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 2**bits
    rows = ((levels[..., None] >> np.arange(bits)[::-1]) & 1).reshape(SIDE, -1).astype(np.uint8)
    return png(
        bits, 0, b"".join(b"\0" + bytes(np.packbits(row)) for row in rows), chunk(b"tRNS", struct.pack(">H", key))
    )


def deep_png(colour: int, key: tuple[int, ...]) -> bytes:
    """16-bit samples; the pixels of the key are transparent."""
    samples = np.random.default_rng(4).integers(0, 65536, (SIDE, SIDE, len(key)), np.uint16)
    samples[::3] = key
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return png(16, colour, rows, chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)))


def turned_exif(orientation: int, option: str = "") -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    if option:
        exif.get_ifd(0x8769)[0xA005] = {1: option}
    return exif.tobytes()


FILES: dict[str, Callable[[], bytes]] = {
    "12-bit TIFF": twelve_bits,
    "16-bit TIFF": lambda: grey_tiff({}, (RAMP * 16).tobytes()),
    "16-bit TIFF whose 0 is white": lambda: grey_tiff({262: 0}, (RAMP * 16).tobytes()),
    "8-bit TIFF whose 0 is white": lambda: grey_tiff({258: 8, 262: 0}, bytes(range(256))),
    "2-bit PNG with a key": lambda: shallow_png(2, 1),
    "4-bit PNG with a key": lambda: shallow_png(4, 9),
    "1-bit PNG with a key": lambda: shallow_png(1, 1),
    "16-bit grey PNG with a key": lambda: deep_png(0, (300,)),
    "16-bit RGB PNG with a key": lambda: deep_png(2, (0x1234, 0x5678, 0x9ABC)),
    "16-bit RGB PNG with a dark key": lambda: deep_png(2, (17, 5, 200)),
    "8-bit PNG with a key": lambda: encode(photo(), "PNG", transparency=photo().getpixel((4, 4))),
    "PNG with a profile": lambda: encode(photo(), "PNG", icc_profile=adobe_rgb()),
    "PNG with code points": lambda: with_chunks(encode(photo(), "PNG"), chunk(b"cICP", bytes([12, 13, 0, 1]))),
    "palette PNG": lambda: encode(photo().quantize(20), "PNG", transparency=bytes(range(0, 200, 10))),
    "RGBA PNG": lambda: encode(photo("RGBA"), "PNG"),
    "LA PNG": lambda: encode(photo("LA"), "PNG"),
    "turned JPEG in Adobe RGB": lambda: encode(photo(), "JPEG", exif=turned_exif(6, "R03"), quality=95),
    "CMYK JPEG": lambda: encode(photo("CMYK"), "JPEG", quality=95),
    "CMYK TIFF": lambda: encode(photo("CMYK"), "TIFF"),
    "LAB TIFF": lambda: encode(photo("RGB").convert("LAB"), "TIFF"),
    "YCbCr TIFF": lambda: encode(photo("YCbCr"), "TIFF"),
    "turned TIFF": lambda: encode(photo(), "TIFF", exif=turned_exif(8), compression="tiff_lzw"),
    "MPO": lambda: encode(photo(), "MPO", save_all=True, append_images=[photo("L").convert("RGB")], quality=95),
    "animated GIF": lambda: encode(photo("P"), "GIF", save_all=True, append_images=[Image.new("P", (SIDE, SIDE))]),
    "part of a GIF": gif_of_a_part,
    "BMP without alpha": lambda: bmp(0),
    "AVIF with code points": lambda: avif_of(photo(), 12, 13),
    "WebP": lambda: encode(photo("RGBA"), "WEBP", lossless=True),
    "PGM": lambda: encode(photo("L"), "PPM"),
}  # fmt: skip
LOST_ONCE_DECODED = ("PNG with code points", "AVIF with code points")
"""Pillow keeps no trace of these colours, and a file in memory is gone once it is decoded."""


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_an_image_opened_from_a_path_arrives_as_its_file_would(name: str, decoded: bool, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(FILES[name]())
    with Image.open(path) as image:
        if decoded:
            image.load()
        np.testing.assert_array_equal(read_image(to_file(image)), read_image(path.read_bytes()))
        # The image goes on as it was.
        assert image.load() is not None


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_an_image_opened_from_memory_arrives_as_its_file_would(name: str, decoded: bool) -> None:
    if decoded and name in LOST_ONCE_DECODED:
        pytest.skip("nothing is left that tells the colours")
    data = FILES[name]()
    image = Image.open(io.BytesIO(data))
    if decoded:
        image.load()
    np.testing.assert_array_equal(read_image(to_file(image)), read_image(data))


@pytest.mark.parametrize("decoded", [False, True])
def test_an_image_whose_file_a_server_refuses_is_refused(decoded: bool, tmp_path: Path) -> None:
    path = tmp_path / "hdr.png"
    path.write_bytes(with_chunks(encode(photo(), "PNG"), chunk(b"cICP", bytes([9, 16, 0, 1]))))
    with Image.open(path) as image:
        if decoded:
            image.load()
        with pytest.raises(ImageError, match="HDR"):
            read_image(to_file(image))


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "resized": lambda image: image.resize((8, 4)),
    "cropped": lambda image: image.crop((2, 2, 9, 12)),
    "converted": lambda image: image.convert("L"),
    "copied": lambda image: image.copy(),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", ["RGBA PNG", "WebP", "CMYK JPEG", "MPO"])
def test_an_edited_image_arrives_as_the_pixels_that_it_has(name: str, edit: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(FILES[name]())
    with Image.open(path) as image:
        edited = EDITS[edit](image)
    expected = read_image(encode(edited, "TIFF" if edited.mode == "CMYK" else "PNG"))
    np.testing.assert_array_equal(read_image(to_file(edited)), expected)


def painted(image: Image.Image) -> None:
    image.putpixel((3, 3), (1, 2, 3))


def given_a_profile(image: Image.Image) -> None:
    image.info["icc_profile"] = adobe_rgb()


def turned(image: Image.Image) -> None:
    image.getexif()[ExifTags.Base.Orientation] = 6


def drafted(image: Image.Image) -> None:
    image.draft("L", (4, 4))


@pytest.mark.parametrize("change", [painted, given_a_profile, turned, drafted])
@pytest.mark.parametrize("decoded", [False, True])
def test_an_image_changed_in_place_arrives_changed(
    change: Callable[[Image.Image], None], decoded: bool, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    path.write_bytes(encode(photo().resize((64, 64)), "JPEG"))
    with Image.open(path) as image:
        if decoded:
            image.load()
        change(image)
        there = read_image(to_file(image))
        assert (to_file(image) == path.read_bytes()) == (decoded and change is drafted)  # which a decoded image ignores
        as_file = encode(image, "PNG", exif=image.getexif(), icc_profile=image.info.get("icc_profile"))
    np.testing.assert_array_equal(there, read_image(as_file))


def test_the_second_frame_is_sent_where_it_is_the_one_that_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "two.mpo"
    other = photo().rotate(90)
    path.write_bytes(encode(photo(), "MPO", save_all=True, append_images=[other], quality=100))
    with Image.open(path) as image:
        image.seek(1)
        np.testing.assert_array_equal(read_image(to_file(image)), np.asarray(image))
        image.seek(0)
        np.testing.assert_array_equal(read_image(to_file(image)), read_image(path.read_bytes()))


def test_a_file_that_was_replaced_behind_an_open_image_is_not_sent_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encode(photo(), "PNG"))
    with Image.open(path) as image:
        image.load()
        path.write_bytes(encode(photo().rotate(180), "PNG"))
        np.testing.assert_array_equal(read_image(to_file(image)), np.asarray(photo()))
