# SPDX-License-Identifier: Apache-2.0
"""Files that are more structure than pixels are refused, and good pixels are read whatever stands beside them."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from latentwire_codec.images import structure
from latentwire_codec.images.files import read_image
from latentwire_core.colour.code_points import CodePoints, adobe_rgb
from latentwire_core.errors import ImageError, ImageTooLarge
from tests.image_files import (
    COLOUR,
    avif_of,
    bmp,
    bmp_with_profile,
    chunk,
    encode,
    gif_of_a_part,
    jpeg_of_scans,
    plain,
    rgb_tiff,
    with_chunks,
)

FRAME = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 16, 16, 1) + b"\1\x11\0"


def png_with(*chunks: bytes) -> bytes:
    return with_chunks(plain("PNG"), *chunks)


def avif_with(primaries: int, transfer: int) -> bytes:
    return avif_of(Image.new("RGB", (16, 16), COLOUR), primaries, transfer)


def tiled_tiff(width: int, height: int, tile_width: int, tile_height: int) -> bytes:
    """A grey TIFF of deflated tiles that share one place in the file."""
    count = -(-width // max(1, tile_width)) * -(-height // tile_height)
    pixels = zlib.compress(bytes(tile_width * tile_height))
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile_width, 323: tile_height}
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    tables = struct.pack(f"<{count}I", *[start] * count) + struct.pack(f"<{count}I", *[len(pixels)] * count)
    places = (start, len(pixels)) if count == 1 else (start + len(pixels), start + len(pixels) + 4 * count)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    entries += b"".join(
        struct.pack("<HHII", tag, 4, count, place) for tag, place in zip((324, 325), places, strict=True)
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags) + 2) + entries + bytes(4) + pixels + tables


# Work


def test_a_jpeg_of_as_many_scans_as_encoders_write_is_read() -> None:
    assert read_image(jpeg_of_scans(structure.JPEG_SCANS)).shape == (16, 16, 3)
    photograph = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    assert read_image(encode(Image.fromarray(photograph), "JPEG", progressive=True)).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (lambda: jpeg_of_scans(101), "JPEG file has more than 100 scans"),
        (lambda: b"\xff\xd8" + b"\xff\xfe\0\x02" * 5000 + plain("JPEG")[2:], "JPEG file has more than 4096 segments"),
        (lambda: plain("JPEG")[:20] + bytes(70_000) + plain("JPEG")[20:], "JPEG file has more than 65536 stray bytes"),
        (
            lambda: plain("JPEG").replace(b"\xff\xda", FRAME * 2 + b"\xff\xda"),
            "JPEG file has more than 1 frame headers",
        ),
        (lambda: png_with(chunk(b"tEXt", b"x\0y") * 70_000), "PNG file has more than 65536 chunks"),
        (
            lambda: (
                b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + b"!\xfe" + (b"\xff" + bytes(255)) * 5000 + b"\0,"
            ),
            "GIF file has more than 1048576 bytes before its first frame",
        ),
        (
            lambda: b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + b"!\xfe\0" * 70_000 + b",",
            "GIF file has more than 65536 blocks and stray bytes before its first frame",
        ),
        (
            lambda: b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + bytes(70_000) + b",",
            "GIF file has more than 65536 blocks and stray bytes before its first frame",
        ),
        (lambda: rgb_tiff({}, strips=70_000), "TIFF file has more than 65536 strips"),
        (lambda: plain("WEBP") + b"ABCD\0\0\0\0" * 2000, "WEBP file has more than 1024 chunks"),
        (lambda: b"P6\n" + b"#\n" * 5000 + b"1 1 255\n\0\0\0", "PPM file has more than 4096 bytes of comments"),
    ],
)
def test_a_file_that_is_all_structure_is_refused_with_the_number_and_the_limit(
    file: Callable[[], bytes], message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(file())


def test_stray_bytes_before_a_frame_do_not_hide_it() -> None:
    file = gif_of_a_part()
    np.testing.assert_array_equal(read_image(file[:25] + bytes(9) + file[25:]), read_image(file))


@pytest.mark.parametrize("file", [png_with(plain("PNG")[8:33]), plain("PNG")[:8] + chunk(b"tEXt", b"x\0y")])
def test_a_png_that_does_not_begin_with_its_only_header_is_refused(file: bytes) -> None:
    # A second header could tell another depth than the one that was looked at.
    with pytest.raises(ImageError, match="does not begin with its only IHDR chunk"):
        read_image(file)


def test_tiles_that_are_much_larger_than_their_image_are_refused() -> None:
    # libtiff decodes whole tiles: 64 tiles, each within the limits, of a thousand pixels.
    with pytest.raises(ImageTooLarge, match=r"tiles of 16x1048576, together 1073741824 pixels for 1024x1"):
        read_image(tiled_tiff(1024, 1, 16, 1 << 20))
    assert read_image(tiled_tiff(20, 5, 512, 512)).shape == (5, 20, 3)
    with pytest.raises(ImageError, match="tiles of 0x16"):
        read_image(tiled_tiff(20, 5, 0, 16))


def test_the_stages_of_a_profile_s_float_pipeline_are_never_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    # A pipeline of 20,000 stages takes 10 s for one pixel.
    seen: list[bytes] = []
    make = ImageCms.ImageCmsProfile

    def look(file: io.BytesIO) -> ImageCms.ImageCmsProfile:
        seen.append(file.getvalue())
        return make(file)

    monkeypatch.setattr(ImageCms, "ImageCmsProfile", look)
    profile = adobe_rgb().replace(b"wtpt", b"D2B0")
    read_image(plain("PNG", icc_profile=profile))
    assert seen == [profile.replace(b"D2B0", b"---0")]


# Parts beside the pixels


@pytest.mark.parametrize(
    "beside",
    [
        chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(3 << 20))),
        chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(3 << 20))),
        chunk(b"tEXt", b"x\0text", damage=1),
        chunk(b"gAMA", b""),
        chunk(b"iCCP", b"x"),
        chunk(b"eXIf", b"II*\0", damage=1),
        chunk(b"vpAg", b"of a kind that nobody knows"),
    ],
)
def test_ancillary_chunks_of_any_kind_do_not_stand_in_the_way_of_good_pixels(beside: bytes) -> None:
    assert (read_image(png_with(beside)) == COLOUR).all()


def test_a_large_profile_of_a_png_is_applied() -> None:
    padded = bytearray(adobe_rgb() + bytes(2 << 20))
    padded[:4] = struct.pack(">I", len(padded))
    large = read_image(png_with(chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(padded)))))
    small = read_image(plain("PNG", icc_profile=adobe_rgb()))
    assert (large == small).all()
    assert not (large == COLOUR).all()


def test_a_damaged_critical_chunk_is_still_refused() -> None:
    data = bytearray(plain("PNG"))
    data[29] ^= 1
    with pytest.raises(ImageError, match="truncated, damaged"):
        read_image(bytes(data))


def test_the_part_of_a_gif_that_no_frame_covers_is_white() -> None:
    assert read_image(gif_of_a_part()).tolist() == [[[255, 255, 255]] * 2 + [[255, 0, 0]] * 2] * 2


@pytest.mark.parametrize(("alpha", "expected"), [(0, (200, 20, 10)), (255, (200, 20, 10)), (51, (244, 208, 206))])
def test_alpha_that_is_zero_throughout_a_bmp_is_no_alpha(alpha: int, expected: tuple[int, int, int]) -> None:
    assert (read_image(bmp(alpha)) == expected).all()


# Previews


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_preview_in_the_image_s_place_is_refused_by_name(order: str) -> None:
    assert (read_image(rgb_tiff({}, order=order)) == COLOUR).all()
    assert (read_image(rgb_tiff({254: 0}, order=order)) == COLOUR).all()
    with pytest.raises(ImageError, match="is a preview of another"):
        read_image(rgb_tiff({254: 1}, order=order))
    with pytest.raises(ImageError, match=r"raw file \(DNG\)"):
        read_image(rgb_tiff({254: 1, 50706: 4}, order=order))
    with pytest.raises(ImageError, match=r"raw file \(CR2\)"):
        read_image(b"II*\0\x10\0\0\0CR\2\0" + rgb_tiff({})[12:])


# Colours


def close(data: bytes, expected: tuple[int, int, int], tolerance: int = 3) -> bool:
    return bool((np.abs(read_image(data).astype(int) - expected) <= tolerance).all())


def test_code_points_of_an_avif_are_honoured() -> None:
    assert close(avif_with(1, 13), COLOUR)
    assert close(avif_with(2, 2), COLOUR)
    # Display P3, as browsers show it.
    assert close(avif_with(12, 13), (217, 42, 23))


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_by_name(transfer: int, name: str) -> None:
    for data in (avif_with(9, transfer), png_with(chunk(b"cICP", bytes([9, transfer, 0, 1])))):
        with pytest.raises(ImageError, match=rf"the image is HDR \({name}"):
            read_image(data)


def test_code_points_of_a_png_stand_over_its_profile() -> None:
    p3 = chunk(b"cICP", bytes([12, 13, 0, 1]))
    adobe = chunk(b"iCCP", b"x\0\0" + zlib.compress(adobe_rgb()))
    assert close(png_with(p3), (217, 42, 23))
    assert (read_image(png_with(adobe, p3)) == read_image(png_with(p3))).all()
    assert not (read_image(png_with(adobe)) == read_image(png_with(p3))).all()


def test_a_camera_s_adobe_rgb_is_known_by_its_option_file() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    for name in ("JPEG", "PNG"):
        options: dict[str, Any] = {"quality": 100, "subsampling": 0} if name == "JPEG" else {}
        told = read_image(plain(name, exif=exif.tobytes(), **options))
        assert (told == read_image(plain(name, icc_profile=adobe_rgb(), **options))).all()


def test_the_profile_of_a_bmp_is_applied() -> None:
    assert (read_image(bmp_with_profile(adobe_rgb())) == read_image(plain("PNG", icc_profile=adobe_rgb()))[0, 0]).all()


def test_primaries_of_every_code_point_keep_white_and_grey() -> None:
    grey = Image.new("RGB", (2, 2), (128, 128, 128))
    for primaries in range(1, 23):
        profile = CodePoints(primaries, 13).profile()
        if profile is not None:
            pixels = read_image(encode(grey, "PNG", icc_profile=profile))
            assert np.abs(pixels.astype(int) - 128).max() <= 1, primaries
