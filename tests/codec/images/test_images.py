# SPDX-License-Identifier: Apache-2.0
"""Image files in, pixels out and back; every conversion against values known beforehand."""

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms

from latentwire_codec.images.files import READABLE_FORMATS, ImageLimits, open_image, read_image
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.images.writing import write_image
from latentwire_codec.metrics.scores import psnr
from latentwire_core.errors import ImageError, ImageTooLarge, TensorError
from latentwire_core.formats import ImageFormat

astronaut: Callable[[], Pixels] = skimage.data.astronaut

LOSSLESS: list[tuple[str, dict[str, Any]]] = [
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ("BMP", {}),
    ("PPM", {}),
    ("WEBP", {"lossless": True}),
]
LOSSY = (ImageFormat.JPEG, ImageFormat.WEBP, ImageFormat.AVIF)


def encode(image: Image.Image, name: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG by hand: `rows` with their filter bytes, `more` chunks before the pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + pixels + png_chunk(b"IEND", b"")


def tiff(width: int, height: int, tags: Mapping[int, tuple[int, ...]], strip: bytes) -> bytes:
    """A little-endian TIFF by hand: one strip, tags of SHORTs beside the sizes."""
    sizes = {256: (width,), 257: (height,), 259: (1,), 277: (1,), 278: (height,)}
    all_tags = {**sizes, **tags, 273: (8,), 279: (len(strip),)}
    entries, beyond = b"", b""
    start_of_beyond = 8 + len(strip) + 2 + 12 * len(all_tags) + 4
    for tag, values in sorted(all_tags.items()):
        kind = 3 if max(values) < 65536 else 4
        body = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(body) > 4:
            beyond, body = beyond + body, struct.pack("<I", start_of_beyond + len(beyond))
        entries += struct.pack("<HHI", tag, kind, len(values)) + body.ljust(4, b"\0")
    directory = struct.pack("<H", len(all_tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory + beyond


def small_photo(height: int = 24, width: int = 20) -> Pixels:
    photo: Pixels = np.ascontiguousarray(astronaut()[100::17, 150::11][:height, :width])
    return photo


# --- profiles, by hand, so that what they mean is known here and not only to the library ---------


def profile(space: bytes, kind: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, bodies = struct.pack(">I", len(tags)), b""
    for tag, body in tags.items():
        offset = 128 + 4 + 12 * len(tags) + len(bodies)
        table += tag + struct.pack(">II", offset, len(body))
        bodies += body + bytes(-len(body) % 4)
    size = 128 + len(table) + len(bodies)
    header = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02400000, kind, space, pcs)
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + bodies


def curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


# Adobe RGB (1998), adapted to D50.
ADOBE_TO_XYZ = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB_TO_XYZ = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
ADOBE_GAMMA = 2.19921875


def matrix_profile(to_xyz: npt.NDArray[np.float64], tone_curve: bytes) -> bytes:
    columns = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), to_xyz.T, strict=True))
    tags = {tag: xyz(*column) for tag, column in columns.items()}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), tone_curve)
    return profile(b"RGB ", b"mntr", b"XYZ ", tags | {b"wtpt": xyz(0.9642, 1, 0.8249)})


def adobe_rgb_profile() -> bytes:
    return matrix_profile(ADOBE_TO_XYZ, curve(ADOBE_GAMMA))


def linear_grey_profile() -> bytes:
    tags = {b"kTRC": curve(1.0), b"wtpt": xyz(0.9642, 1, 0.8249)}
    return profile(b"GRAY", b"mntr", b"XYZ ", tags)


def grey_ink_profile() -> bytes:
    """A CMYK profile in which all four inks print the same grey, and each takes 25 of L* 100."""
    identity = bytes(range(256))
    nodes = bytearray()
    for node in range(16):
        nodes += bytes([round((100 - 25 * node.bit_count()) * 2.55), 128, 128])
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix
    table += identity * 4 + bytes(nodes) + identity * 3
    return profile(b"CMYK", b"prtr", b"Lab ", {b"A2B0": table, b"wtpt": xyz(0.9642, 1, 0.8249)})


def srgb_encoded(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    low = linear * 12.92
    return 255 * np.where(linear <= 0.0031308, low, 1.055 * linear ** (1 / 2.4) - 0.055)


# --- formats -------------------------------------------------------------------------------------


def test_every_readable_format_is_read() -> None:
    photo = small_photo()
    for name in READABLE_FORMATS:
        pixels = read_image(encode(Image.fromarray(photo), name))
        assert pixels.shape == photo.shape
        assert pixels.dtype == np.uint8
        assert psnr(pixels, photo) > 15, name
        assert pixels.flags.c_contiguous, name
        assert pixels.flags.owndata, name
        assert pixels.flags.writeable, name


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 9), data=st.data())
def test_lossless_formats_come_back_bit_for_bit(height: int, width: int, seed: int, data: st.DataObject) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert np.array_equal(read_image(write_image(pixels)), pixels)
    name, options = data.draw(st.sampled_from(LOSSLESS))
    assert np.array_equal(read_image(encode(Image.fromarray(pixels), name, **options)), pixels)


def test_a_multi_picture_jpeg_gives_its_first_picture() -> None:
    photo = Image.fromarray(small_photo())
    file = io.BytesIO()
    photo.save(file, "MPO", save_all=True, append_images=[Image.new("RGB", photo.size)])
    assert psnr(read_image(file.getvalue()), small_photo()) > 15


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_an_animation_gives_its_first_frame(name: str) -> None:
    first, second = Image.new("RGB", (16, 16), (200, 0, 0)), Image.new("RGB", (16, 16), "blue")
    data = encode(first, name, save_all=True, append_images=[second])
    assert np.abs(read_image(data).astype(int) - [200, 0, 0]).max() <= 8


# --- colour --------------------------------------------------------------------------------------


def test_alpha_is_composited_over_white_exactly() -> None:
    alpha = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgba = np.dstack([np.full_like(alpha, value) for value in (0, 100, 255)] + [alpha])
    share = alpha.astype(float) / 255
    expected = np.stack([value * share + 255 * (1 - share) for value in (0, 100, 255)], axis=-1)
    for name, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        pixels = read_image(encode(Image.fromarray(rgba), name, **options))
        np.testing.assert_array_equal(pixels, np.floor(expected + 0.5))


def test_grey_with_alpha_is_composited_over_white() -> None:
    image = Image.new("LA", (2, 1))
    image.putpixel((0, 0), (40, 255))
    image.putpixel((1, 0), (40, 51))
    assert read_image(encode(image)).tolist() == [[[40] * 3, [212] * 3]]


def test_premultiplied_alpha_is_composited_over_white() -> None:
    # Red at half opacity, stored multiplied; ExtraSamples 1 says so.
    tags = {258: (8, 8, 8, 8), 262: (2,), 277: (4,), 338: (1,)}
    pixels = read_image(tiff(1, 1, tags, bytes([128, 0, 0, 128])))
    np.testing.assert_allclose(pixels, [[[255, 127, 127]]], atol=1)
    grey = read_image(tiff(1, 1, {258: (8, 8), 262: (1,), 277: (2,), 338: (1,)}, bytes([0, 128])))
    np.testing.assert_allclose(grey, [[[127, 127, 127]]], atol=1)


def test_a_palette_is_looked_up() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 7, 8, 9])
    image.putdata([2, 0, 1])
    expected = [[[7, 8, 9], [10, 20, 30], [200, 100, 50]]]
    for name in ("PNG", "GIF", "BMP", "TIFF"):
        assert read_image(encode(image, name)).tolist() == expected, name


@pytest.mark.parametrize(
    ("transparency", "expected"),
    [
        (1, [[10, 20, 30], [255, 255, 255], [7, 8, 9]]),
        (bytes([255, 51, 255]), [[10, 20, 30], [244, 224, 214], [7, 8, 9]]),
    ],
)
def test_palette_transparency_is_composited_over_white(transparency: int | bytes, expected: list[list[int]]) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 7, 8, 9])
    image.putdata([0, 1, 2])
    assert read_image(encode(image, transparency=transparency)).tolist() == [expected]


def test_a_transparent_gif_is_composited_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert read_image(encode(image, "GIF", transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("depth", "row", "key", "expected"),
    [
        (1, b"\x40", 1, [0, 255]),
        (1, b"\x40", 0, [255, 255]),
        (2, b"\x60", 2, [85, 255]),
        (4, b"\x3a", 3, [255, 170]),
        (8, b"\x03\xc8", 200, [3, 255]),
        (8, b"\x03\xc8", 3, [255, 200]),
        (16, b"\x80\x00\xff\x00", 0x8000, [255, 254]),
    ],
)
def test_the_transparent_grey_of_a_png_of_each_depth_becomes_white(
    depth: int, row: bytes, key: int, expected: list[int]
) -> None:
    data = png(2, 1, depth, 0, b"\0" + row, png_chunk(b"tRNS", struct.pack(">H", key)))
    assert read_image(data)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour_of_a_png_becomes_white(depth: int) -> None:
    def sample(value: int) -> bytes:
        return bytes([value]) if depth == 8 else struct.pack(">H", 256 * value + 99)

    row = b"\0" + b"".join(sample(value) for value in (10, 20, 30, 10, 20, 31))
    colour = (int.from_bytes(sample(value), "big") for value in (10, 20, 30))
    key = png_chunk(b"tRNS", struct.pack(">3H", *colour))
    assert read_image(png(2, 1, depth, 2, row, key)).tolist() == [[[255] * 3, [10, 20, 31]]]


def test_16_bit_grey_is_scaled_and_rounded() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.floor(values / 257 + 0.5)
    image = Image.fromarray(values)
    assert image.mode == "I;16"
    for name, options in (("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})):
        pixels = read_image(encode(image, name, **options))
        for channel in range(3):
            np.testing.assert_array_equal(pixels[..., channel], expected)
    big_endian = b"P5\n256 256\n65535\n" + values.astype(">u2").tobytes()
    np.testing.assert_array_equal(read_image(big_endian)[..., 0], expected)


def test_16_bit_tiff_in_which_zero_is_white_is_inverted() -> None:
    strip = struct.pack("<3H", 0, 65535, 257 * 200)
    pixels = read_image(tiff(3, 1, {258: (16,), 262: (0,)}, strip))
    assert pixels[0, :, 0].tolist() == [255, 0, 55]


def test_12_bit_tiff_is_scaled_by_its_own_white() -> None:
    pixels = read_image(tiff(2, 1, {258: (12,), 262: (1,)}, bytes([0xFF, 0xF8, 0x00])))
    assert pixels[0, :, 0].tolist() == [255, 128]


def test_32_bit_grey_within_16_bits_is_read_and_beyond_is_refused() -> None:
    within = Image.fromarray(np.array([[0, 65535]], np.int32))
    assert read_image(encode(within, "TIFF"))[0, :, 1].tolist() == [0, 255]
    for value in (65536, -1):
        beyond = Image.fromarray(np.array([[0, value]], np.int32))
        with pytest.raises(ImageError, match=f"grey values run from .*{value}.*0..65535"):
            read_image(encode(beyond, "TIFF"))


def test_16_bit_colour_keeps_the_upper_byte() -> None:
    row = b"\0" + struct.pack(">3H", 0x1234, 0xABCD, 0xFFFF)
    assert read_image(png(1, 1, 16, 2, row)).tolist() == [[[0x12, 0xAB, 0xFF]]]


def test_floating_point_samples_are_refused() -> None:
    image = Image.fromarray(np.zeros((2, 2), np.float32))
    for name in ("TIFF", "PPM"):
        with pytest.raises(ImageError, match=r"floating point samples.*raw tensor"):
            read_image(encode(image, name))


def test_one_bit_images_become_black_and_white() -> None:
    image = Image.fromarray(np.array([[True, False, True]]))
    for name in ("PNG", "TIFF", "PPM", "BMP"):
        assert read_image(encode(image, name))[0].tolist() == [[255] * 3, [0] * 3, [255] * 3], name


def test_cmyk_without_a_profile_is_converted_by_the_plain_formula() -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert read_image(encode(image, "TIFF"))[0, 0].tolist() == [0, 255, 255]
    jpeg = read_image(encode(image, "JPEG", quality=100))
    np.testing.assert_allclose(jpeg[0, 0], [0, 255, 255], atol=3)
    ink = Image.new("CMYK", (1, 1), (0, 128, 0, 64))
    np.testing.assert_allclose(read_image(encode(ink, "TIFF"))[0, 0], [191, 95, 191], atol=1)


def test_ycbcr_is_converted() -> None:
    # JFIF's formula for pure red: Y 76, Cb 85, Cr 255.
    image = Image.new("YCbCr", (4, 4), (76, 85, 255))
    np.testing.assert_allclose(read_image(encode(image, "TIFF"))[0, 0], [254, 0, 0], atol=1)


def test_lab_is_converted() -> None:
    # L* 50 is sRGB 119; L* 54.3, a* 80.8, b* 69.9 (D50) is red.
    grey = tiff(1, 1, {258: (8, 8, 8), 262: (8,), 277: (3,)}, bytes([128, 0, 0]))
    np.testing.assert_allclose(read_image(grey)[0, 0], [119, 119, 119], atol=1)
    red = tiff(1, 1, {258: (8, 8, 8), 262: (8,), 277: (3,)}, bytes([138, 81, 70]))
    np.testing.assert_allclose(read_image(red)[0, 0], [255, 0, 0], atol=6)


# --- ICC profiles --------------------------------------------------------------------------------


def test_an_adobe_rgb_photograph_is_converted_to_srgb() -> None:
    photo = small_photo()
    linear = (photo / 255.0) ** ADOBE_GAMMA
    expected = srgb_encoded(linear @ (np.linalg.inv(SRGB_TO_XYZ) @ ADOBE_TO_XYZ).T)
    assert np.abs(expected - photo).max() > 15  # so that ignoring the profile fails
    for name in ("PNG", "TIFF"):
        pixels = read_image(encode(Image.fromarray(photo), name, icc_profile=adobe_rgb_profile()))
        np.testing.assert_allclose(pixels, expected, atol=2)


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "AVIF"])
def test_the_profile_of_each_lossy_format_is_applied(name: str) -> None:
    colour = np.array([60, 140, 90])
    expected = srgb_encoded(((colour / 255) ** ADOBE_GAMMA) @ (np.linalg.inv(SRGB_TO_XYZ) @ ADOBE_TO_XYZ).T)
    image = Image.new("RGB", (32, 32), tuple(colour.tolist()))
    data = encode(image, name, quality=100, icc_profile=adobe_rgb_profile())
    assert abs(expected[0] - colour[0]) > 30
    np.testing.assert_allclose(read_image(data)[16, 16], expected, atol=6)


def test_swapped_primaries_swap_the_channels() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")
    photo = small_photo()
    pixels = read_image(encode(Image.fromarray(photo), icc_profile=swapped))
    np.testing.assert_allclose(pixels, photo[..., [1, 0, 2]].astype(int), atol=2)


def test_a_profile_that_is_srgb_by_another_name_changes_nothing() -> None:
    # The compact profiles in use on the web sample the curve at 26 points or fewer.
    photo = small_photo()
    levels = np.linspace(0, 1, 26)
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    table = b"curv" + bytes(4) + struct.pack(">I", 26)
    table += np.rint(linear * 65535).astype(">u2").tobytes()
    srgb = matrix_profile(SRGB_TO_XYZ, table)
    converted = ImageCms.profileToProfile(
        Image.fromarray(photo),
        ImageCms.ImageCmsProfile(io.BytesIO(srgb)),
        ImageCms.createProfile("sRGB"),
    )
    assert converted is not None
    assert not np.array_equal(np.asarray(converted), photo)  # what it would do
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(photo), icc_profile=srgb)), photo)


def test_alpha_survives_a_profile() -> None:
    image = Image.new("RGBA", (2, 1), (60, 140, 90, 0))
    image.putpixel((1, 0), (60, 140, 90, 255))
    opaque, profile_data = image.convert("RGB"), adobe_rgb_profile()
    expected = read_image(encode(opaque, icc_profile=profile_data))[0, 1].tolist()
    pixels = read_image(encode(image, icc_profile=profile_data))
    assert pixels[0].tolist() == [[255, 255, 255], expected]


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_is_applied_to_grey(mode: str) -> None:
    image = Image.new("L", (2, 2), 64).convert(mode)
    expected = srgb_encoded(np.array(64 / 255))  # 137
    pixels = read_image(encode(image, icc_profile=linear_grey_profile()))
    np.testing.assert_allclose(pixels, np.full((2, 2, 3), expected), atol=1)


def test_a_grey_profile_is_applied_to_16_bit_grey() -> None:
    image = Image.fromarray(np.full((2, 2), 64 * 257, np.uint16))
    pixels = read_image(encode(image, icc_profile=linear_grey_profile()))
    np.testing.assert_allclose(pixels, 137, atol=1)


def test_an_rgb_profile_is_applied_to_grey_and_palette_images() -> None:
    for mode in ("L", "P"):
        image = Image.new("L", (2, 2), 40).convert(mode)
        pixels = read_image(encode(image, icc_profile=adobe_rgb_profile()))
        expected = srgb_encoded(np.array((40 / 255) ** ADOBE_GAMMA))
        assert abs(expected - 40) > 1.5
        np.testing.assert_allclose(pixels, np.full((2, 2, 3), expected), atol=1)


@pytest.mark.parametrize("name", ["TIFF", "JPEG"])
def test_a_cmyk_profile_is_applied(name: str) -> None:
    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 255))  # by the plain formula: black
    data = encode(inks, name, icc_profile=grey_ink_profile())
    np.testing.assert_allclose(read_image(data)[8, 8], [119, 119, 119], atol=3)  # L* 50


@pytest.mark.parametrize(
    "icc",
    [
        b"not a profile",
        adobe_rgb_profile()[:200],
        bytes(500),
        linear_grey_profile(),
        grey_ink_profile(),
        profile(b"RGB ", b"mntr", b"XYZ ", {b"wtpt": xyz(0.9642, 1, 0.8249)}),
    ],
    ids=["text", "truncated", "zeros", "of grey", "of inks", "without curves"],
)
def test_a_broken_or_foreign_profile_is_ignored(icc: bytes) -> None:
    photo = small_photo()
    data = encode(Image.fromarray(photo), icc_profile=icc)
    np.testing.assert_array_equal(read_image(data), photo)


def test_a_text_chunk_named_like_a_profile_is_ignored() -> None:
    text = png_chunk(b"tEXt", b"icc_profile\0text")
    assert read_image(png(1, 1, 8, 2, b"\0\1\2\3", text)).tolist() == [[[1, 2, 3]]]


# --- orientation ---------------------------------------------------------------------------------

# What stands where when the stored image is [[1, 2, 3], [4, 5, 6]] (EXIF 2.3, tag 0x0112: which
# sides row 0 and column 0 are).
UPRIGHT = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(name: str, orientation: int) -> None:
    levels = np.kron(np.array([[1, 2, 3], [4, 5, 6]]) * 40, np.ones((16, 16))).astype(np.uint8)
    image = Image.fromarray(np.dstack([levels] * 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read_image(encode(image, name, exif=exif))
    seen = np.rint(pixels[8::16, 8::16, 0] / 40).astype(int)
    assert seen.tolist() == UPRIGHT[orientation]


def test_orientation_in_a_compressed_tiff_is_applied_once() -> None:
    image = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    data = encode(image, "TIFF", compression="tiff_lzw", tiffinfo={274: 6})
    np.testing.assert_array_equal(read_image(data), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_an_opened_image_tells_its_orientation_and_reads_the_pixels_without(name: str, orientation: int) -> None:
    levels = np.kron(np.array([[1, 2, 3], [4, 5, 6]]) * 40, np.ones((16, 16))).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.dstack([levels] * 3)), name, exif=exif)
    opened = open_image(data)
    pixels = open_image(data).read(upright=False)
    assert opened.size == (pixels.shape[1], pixels.shape[0])
    seen = np.rint(pixels[8::16, 8::16, 0] / 40).astype(int).tolist()
    # Pillow turns the pixels of a TIFF itself.
    assert (opened.orientation, seen) == ((1, UPRIGHT[orientation]) if name == "TIFF" else (orientation, UPRIGHT[1]))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"x" * 40])
def test_broken_exif_counts_as_upright(exif: bytes) -> None:
    photo = small_photo()
    chunk = png_chunk(b"eXIf", exif)
    data = encode(Image.fromarray(photo))
    np.testing.assert_array_equal(read_image(data[:33] + chunk + data[33:]), photo)


# --- size limits ---------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    return png(width, height, 8, 2, b"")


def gif_header(width: int, height: int) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)
    return screen + b"," + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\2\2\x44\1\0;"


def webp_header(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + sides
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_lossless_header(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    body = b"WEBPVP8L" + struct.pack("<I", 5) + b"\x2f" + struct.pack("<I", bits) + b"\0"
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_lossy_header(width: int, height: int) -> bytes:
    frame = b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height)
    body = b"WEBPVP8 " + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_header(width: int, height: int) -> bytes:
    return b"BM" + bytes(8) + struct.pack("<IIiiHH", 54, 40, width, height, 1, 24) + bytes(24)


def tiff_header(width: int, height: int) -> bytes:
    return tiff(width, height, {258: (8, 8, 8), 262: (2,), 277: (3,)}, b"\0")


def jpeg_header(width: int, height: int) -> bytes:
    data = encode(Image.new("RGB", (8, 8)), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def ppm_header(width: int, height: int) -> bytes:
    return b"P6\n%d %d\n255\n" % (width, height)


HEADERS = [
    (png_header, 30000),
    (jpeg_header, 30000),
    (gif_header, 30000),
    (bmp_header, 30000),
    (tiff_header, 30000),
    (ppm_header, 30000),
    (webp_header, 30000),
    (webp_lossless_header, 16384),
    (webp_lossy_header, 16383),
]


@pytest.mark.parametrize(("header", "side"), HEADERS)
def test_a_long_side_is_refused_by_the_header_alone(
    header: Callable[[int, int], bytes], side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.Image.core.new", forbidden)
    with pytest.raises(ImageTooLarge) as caught:
        read_image(header(side, side))
    assert str(caught.value) == (f"image is {side}x{side}; each side must be <= 8192 (serve --max-side)")
    with pytest.raises(ImageTooLarge, match="image is 8193x1; each side"):
        read_image(header(8193, 1))


@pytest.mark.parametrize(("header", "side"), HEADERS)
def test_too_many_pixels_are_refused_by_the_header_alone(
    header: Callable[[int, int], bytes], side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    del side
    monkeypatch.setattr("PIL.Image.core.new", forbidden)
    with pytest.raises(ImageTooLarge) as caught:
        read_image(header(5000, 6000))
    assert str(caught.value) == (
        "image has 30000000 pixels (5000x6000); at most 22369621 are accepted (serve --max-message-mib)"
    )


def forbidden(*args: object) -> None:
    raise AssertionError(f"pixels were allocated: {args}")


def test_a_large_avif_is_refused() -> None:
    data = encode(Image.new("RGB", (300, 40)), "AVIF", speed=10)
    with pytest.raises(ImageTooLarge, match="image is 300x40; each side must be <= 299"):
        read_image(data, ImageLimits(max_side=299))
    with pytest.raises(ImageTooLarge, match="12000 pixels"):
        read_image(data, ImageLimits(max_pixels=11_999))
    assert read_image(data, ImageLimits(max_side=300, max_pixels=12_000)).shape == (40, 300, 3)


def test_a_gif_frame_larger_than_its_screen_is_counted() -> None:
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
    frame = b"," + struct.pack("<4HB", 0, 0, 65535, 65535, 0) + b"\2\2\x44\1\0;"
    with pytest.raises(ImageTooLarge, match=r"image has 4294836225 pixels.*at most 22369621"):
        read_image(screen + frame)


def test_huge_tiles_of_a_small_tiff_are_refused() -> None:
    tags = {258: (8,), 262: (1,), 322: (25008,), 323: (25008,), 324: (8,), 325: (1,), 259: (8,)}
    with pytest.raises(ImageTooLarge, match="tiles of 25008x25008, together 625400064 pixels"):
        read_image(tiff(1, 1, tags, b"\0"))


def test_limits_are_inclusive_and_apply_to_either_side() -> None:
    data = encode(Image.new("RGB", (30, 20)))
    assert read_image(data, ImageLimits(max_side=30, max_pixels=600)).shape == (20, 30, 3)
    for size in ((30, 20), (20, 30)):
        with pytest.raises(ImageTooLarge, match="must be <= 29"):
            read_image(encode(Image.new("RGB", size)), ImageLimits(max_side=29))
    with pytest.raises(ImageTooLarge, match="at most 599"):
        read_image(data, ImageLimits(max_pixels=599))


def test_pillows_own_limit_neither_applies_nor_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = small_photo()
    data = encode(Image.fromarray(photo))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    np.testing.assert_array_equal(read_image(data), photo)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("limits", [{"max_side": 0}, {"max_pixels": 0}, {"max_pixels": -5}])
def test_limits_below_one_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"it must be >= 1"):
        ImageLimits(**limits)


# --- hostile and broken files --------------------------------------------------------------------


def test_empty_bytes_are_refused() -> None:
    with pytest.raises(ImageError, match="empty"):
        read_image(b"")


@pytest.mark.parametrize(
    "data",
    [
        b"hello, world",
        b"\0",
        b"%PDF-1.7",
        b"\x00\x00\x00\x0cjP  \r\n\x87\n",  # JPEG 2000
        b"8BPS\0\1",  # Photoshop
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"\0\0\1\0\1\0",  # an icon
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
)
def test_what_is_no_readable_image_is_refused_with_the_list_of_formats(data: bytes) -> None:
    with pytest.raises(ImageError, match="PNG, JPEG, WEBP, AVIF, TIFF, GIF, BMP, PPM"):
        read_image(data)


@pytest.mark.parametrize(
    "data",
    [png_header(0, 0), png_header(0, 5), bmp_header(0, 5), ppm_header(0, 0), tiff_header(0, 5)],
)
def test_an_image_without_pixels_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"cannot be read|image is 0x\d; each side must be at least 1"):
        read_image(data)


def test_slow_decoders_are_refused() -> None:
    rle = bytearray(encode(Image.new("P", (4, 4)), "BMP"))
    rle[30] = 1
    for data in (b"P3\n1 1\n255\n1 2 3\n", b"P6\n1 1\n254\n\1\2\3", bytes(rle)):
        with pytest.raises(ImageError, match="decodes too slowly to be served"):
            read_image(data)


TINY = Image.fromarray(small_photo(8, 8))
TINY_FILES = {
    "PNG": encode(TINY),
    "JPEG": encode(TINY, "JPEG", quality=50, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    "JPEG progressive": encode(TINY, "JPEG", quality=50, progressive=True),
    "WEBP": encode(TINY, "WEBP", quality=50),
    "WEBP lossless": encode(TINY, "WEBP", lossless=True, icc_profile=linear_grey_profile()),
    "GIF": encode(TINY.quantize(8), "GIF", transparency=1),
    "TIFF": encode(TINY, "TIFF"),
    "TIFF LZW": encode(TINY, "TIFF", compression="tiff_lzw"),
    "AVIF": encode(TINY, "AVIF", speed=10),
    "BMP": encode(TINY, "BMP"),
    "PPM": encode(TINY, "PPM"),
}


def reads_or_raises_image_error(data: bytes) -> bool:
    try:
        pixels = read_image(data)
    except ImageError:
        return False
    assert pixels.ndim == 3
    return True


@pytest.mark.parametrize("name", TINY_FILES)
def test_every_truncation_reads_or_raises_image_error(name: str) -> None:
    data = TINY_FILES[name]
    read = [reads_or_raises_image_error(data[:length]) for length in range(len(data))]
    assert not any(read[: len(data) // 2])
    assert reads_or_raises_image_error(data)


@pytest.mark.parametrize("name", TINY_FILES)
def test_every_changed_byte_reads_or_raises_image_error(name: str) -> None:
    data = TINY_FILES[name]
    random = np.random.default_rng(3)
    for position in range(min(len(data), 250)):
        changed = bytearray(data)
        changed[position] ^= int(random.integers(1, 256))
        reads_or_raises_image_error(bytes(changed))


@settings(max_examples=100, deadline=None)
@given(
    signature=st.sampled_from([data[:16] for data in TINY_FILES.values()]),
    rest=st.binary(max_size=100),
)
def test_noise_after_a_signature_raises_image_error_or_reads(signature: bytes, rest: bytes) -> None:
    reads_or_raises_image_error(signature + rest)


def test_a_truncated_file_is_called_so_with_its_length() -> None:
    data = encode(Image.fromarray(small_photo()))
    with pytest.raises(ImageError, match=r"the PNG file of 300 bytes cannot be read: .*truncated"):
        read_image(data[:300])


def test_files_are_read_in_threads_without_warnings() -> None:
    files = [*TINY_FILES.values(), png_header(30000, 30000)] * 2
    outcomes: list[str] = []

    def read(data: bytes) -> None:
        try:
            read_image(data)
            outcomes.append("read")
        except ImageTooLarge:
            outcomes.append("too large")

    with warnings.catch_warnings(record=True) as caught:
        threads = [threading.Thread(target=read, args=(data,)) for data in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert caught == []
    assert sorted(outcomes) == ["read"] * (len(files) - 2) + ["too large"] * 2


# --- writing -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo() -> Pixels:
    pixels: Pixels = np.ascontiguousarray(astronaut()[:128, 160:320])
    return pixels


@pytest.mark.parametrize("image_format", ImageFormat)
def test_each_format_writes_its_own_kind_of_file(photo: Pixels, image_format: ImageFormat) -> None:
    data = write_image(photo, image_format)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == image_format.pillow_name
        assert image.size == (160, 128)
    assert psnr(read_image(data), photo) > 35


def test_suffixes_are_the_usual_ones() -> None:
    assert [image_format.suffix for image_format in ImageFormat] == [
        ".png",
        ".jpg",
        ".webp",
        ".avif",
    ]


@pytest.mark.parametrize("image_format", LOSSY)
def test_quality_trades_bytes_for_fidelity(photo: Pixels, image_format: ImageFormat) -> None:
    files = [write_image(photo, image_format, quality) for quality in (10, 50, 95)]
    lengths = [len(data) for data in files]
    scores = [psnr(read_image(data), photo) for data in files]
    assert lengths == sorted(set(lengths))
    assert scores == sorted(set(scores))


@pytest.mark.parametrize(
    ("image_format", "default"),
    [(ImageFormat.JPEG, 90), (ImageFormat.WEBP, 90), (ImageFormat.AVIF, 80)],
)
def test_the_default_quality_is_the_documented_one(photo: Pixels, image_format: ImageFormat, default: int) -> None:
    assert write_image(photo, image_format) == write_image(photo, image_format, default)


@pytest.mark.parametrize("image_format", [ImageFormat.JPEG, ImageFormat.AVIF])
def test_colour_keeps_its_full_resolution(image_format: ImageFormat) -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2, 0] = 255
    stripes[:, 1::2, 2] = 255
    # With halved chroma both stripes come back purple.
    assert psnr(read_image(write_image(stripes, image_format)), stripes) > 25


def test_non_contiguous_pixels_are_written(photo: Pixels) -> None:
    view = photo[::-2, 3:90:3]
    np.testing.assert_array_equal(read_image(write_image(view)), view)


@pytest.mark.parametrize("image_format", ImageFormat)
def test_one_pixel_is_written_and_read(image_format: ImageFormat) -> None:
    pixels = np.full((1, 1, 3), 130, np.uint8)
    np.testing.assert_allclose(read_image(write_image(pixels, image_format)), pixels, atol=4)


@pytest.mark.parametrize("image_format", LOSSY)
@pytest.mark.parametrize("quality", [0, -1, 101])
def test_quality_out_of_range_is_refused(image_format: ImageFormat, quality: int) -> None:
    with pytest.raises(ImageError, match=f"quality is {quality}; it must be 1..100"):
        write_image(np.zeros((2, 2, 3), np.uint8), image_format, quality)


def test_png_with_quality_is_refused() -> None:
    with pytest.raises(ImageError, match="quality is 90, but PNG is lossless"):
        write_image(np.zeros((2, 2, 3), np.uint8), ImageFormat.PNG, 90)


@pytest.mark.parametrize(
    ("image_format", "limit"),
    [(ImageFormat.JPEG, 65500), (ImageFormat.WEBP, 16383), (ImageFormat.AVIF, 65536)],
)
def test_a_side_that_the_format_cannot_hold_is_refused(image_format: ImageFormat, limit: int) -> None:
    message = re.escape(f"image is {limit + 1}x1; {image_format.pillow_name} holds sides <= {limit} (")
    with pytest.raises(ImageError, match=message):
        write_image(np.zeros((1, limit + 1, 3), np.uint8), image_format)
    assert write_image(np.zeros((limit, 1, 3), np.uint8), image_format)


@pytest.mark.parametrize("image_format", [ImageFormat.PNG, ImageFormat.JPEG])
def test_a_failing_encoder_raises_image_error(image_format: ImageFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "save", fail)
    monkeypatch.setattr("latentwire_codec.images.writing.isal_zlib.compress", fail)
    with pytest.raises(ImageError, match=rf"2x1 cannot be written as {image_format.pillow_name}: MemoryError"):
        write_image(np.zeros((1, 2, 3), np.uint8), image_format)


@given(pixels=arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))
def test_a_png_holds_the_very_pixels_for_every_reader(pixels: Pixels) -> None:
    file = write_image(pixels)
    with Image.open(io.BytesIO(file)) as image:
        image.verify()  # the checksums
    with Image.open(io.BytesIO(file)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3), (1, 4, 4, 3)])
def test_arrays_that_are_not_rgb_pixels_are_not_written(shape: tuple[int, ...]) -> None:
    with pytest.raises(TensorError, match="shape"):
        write_image(np.zeros(shape, np.uint8))
    with pytest.raises(TensorError, match="float32; give uint8"):
        write_image(np.zeros((4, 4, 3), np.float32))
