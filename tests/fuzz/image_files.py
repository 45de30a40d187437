# SPDX-License-Identifier: Apache-2.0
"""Nothing -> sound image files of every format that is read and of every kind that the formats have."""

import io
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from latentwire_core.colour import code_points

WIDTH, HEIGHT = 48, 36


def encode(image: Image.Image, name: str, **options: Any) -> bytes:
    """Return the bytes of a file that Pillow writes."""
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


@cache
def picture(mode: str = "RGB", width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A gradient with noise, in a mode of Pillow."""
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(1).integers(0, 24, (height, width))
    levels = np.stack([rows * 5, columns * 4, rows + columns, 255 - columns * 5], -1) + noise[..., None]
    return Image.fromarray((levels % 256).astype(np.uint8), "RGBA").convert(mode)


@cache
def corpus() -> dict[str, tuple[bytes, ...]]:
    """Map each format to sound files of it; ICC and EXIF hold profiles and metadata, which other files carry."""
    return {
        "JPEG": jpegs(),
        "PNG": pngs(),
        "GIF": gifs(),
        "WEBP": webps(),
        "BMP": bmps(),
        "TIFF": tiffs(),
        "AVIF": avifs(),
        "PPM": ppms(),
        "ICC": profiles(),
        "EXIF": (metadata(), metadata("MM")),
    }


def metadata(order: str = "II") -> bytes:
    """Exif, a TIFF without pixels: turned, with the option file R03 and a preview of one byte."""
    form = "<" if order == "II" else ">"
    first = [(0x010F, 2, 4, b"Cam\0"), (0x0112, 3, 1, struct.pack(f"{form}HH", 6, 0)), (0x8769, 4, 1, None)]
    exif = [(0x9000, 7, 4, b"0232"), (0xA005, 4, 1, None)]
    interop = [(1, 2, 4, b"R03\0")]
    data, start = order.encode() + struct.pack(f"{form}HI", 42, 8), 8
    for directory in (first, exif, interop):
        start += 2 + 12 * len(directory) + 4
        data += struct.pack(f"{form}H", len(directory))
        for tag, kind, count, value in directory:
            data += struct.pack(f"{form}HHI", tag, kind, count)
            data += struct.pack(f"{form}I", start) if value is None else value
        data += bytes(4)
    return data


def jpegs() -> tuple[bytes, ...]:
    """Baseline, progressive, grey, CMYK, restarts, Exif, XMP, a profile in several segments, MPO, many scans."""
    rgb, profile = picture(), code_points.matrix_profile(code_points.PRIMARIES[12], bytes(100_000))
    return (
        encode(rgb, "JPEG"),
        encode(rgb, "JPEG", quality=100, subsampling="4:4:4", restart_marker_blocks=2, comment=b"comment"),
        encode(rgb, "JPEG", progressive=True, exif=b"Exif\0\0" + metadata(), icc_profile=profile, keep_rgb=True),
        encode(picture("L"), "JPEG", progressive=True, xmp=b'<x tiff:Orientation="6"/>'),
        encode(picture("CMYK"), "JPEG", icc_profile=profiles()[0]),
        encode(rgb, "MPO", save_all=True, append_images=[rgb]),
        jpeg_of_scans(60),
    )


def jpeg_of_scans(scans: int) -> bytes:
    """A progressive, grey JPEG: one scan of the mean, all others refine nothing."""

    def segment(marker: int, body: bytes) -> bytes:
        return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body

    head = segment(0xDB, b"\0" + bytes([16] * 64)) + segment(0xC2, struct.pack(">BHHB", 8, 16, 16, 1) + b"\1\x11\0")
    tables = segment(0xC4, b"\0" + bytes([1, *[0] * 15]) + b"\0")
    tables += segment(0xC4, b"\x10" + bytes([1, 1, *[0] * 14]) + b"\xe0\0")
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + b"\x0f"
    refining = segment(0xDA, bytes([1, 1, 0, 1, 63, 0x10])) + b"\xab"
    return b"\xff\xd8" + head + tables + first + refining * (scans - 1) + b"\xff\xd9"


def pngs() -> tuple[bytes, ...]:
    """Every colour type, depth and filter, interlaced and not, with what stands beside the pixels; APNG."""
    rgb, palette = picture(), picture().convert("P")
    return (
        encode(rgb, "PNG", icc_profile=code_points.adobe_rgb(), exif=metadata()),
        encode(picture("RGBA"), "PNG"),
        encode(picture("LA"), "PNG"),
        encode(picture("1"), "PNG"),
        encode(palette, "PNG", transparency=bytes(range(256))),
        encode(palette.quantize(4), "PNG", bits=2),
        encode(Image.fromarray(np.arange(96, dtype=np.uint16).reshape(8, 12) * 600), "PNG"),
        encode(rgb, "PNG", save_all=True, append_images=[picture("RGBA").rotate(90, expand=True).convert("RGB")]),
        png(16, 2, 0, chunk(b"tRNS", struct.pack(">3H", 300, 2, 1)), chunk(b"cICP", bytes([12, 13, 0, 1]))),
        png(8, 6, 1, chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")),
        png(1, 0, 1, chunk(b"tRNS", struct.pack(">H", 1))),
        png(4, 3, 1, chunk(b"PLTE", bytes(range(48))), chunk(b"tRNS", bytes(range(16)))),
    )


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(depth: int, colour: int, interlace: int, *beside: bytes) -> bytes:
    """A PNG of random bytes, with every filter, of a depth, a colour type and an interlace method."""
    random = np.random.default_rng(2)
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b""
    for left, top, right, down in passes:
        width, height = len(range(left, WIDTH, right)), len(range(top, HEIGHT, down))
        for row in range(height):
            rows += bytes([row % 5]) + random.bytes((width * channels * depth + 7) // 8)
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, interlace)
    packed = zlib.compress(rows)
    pixels = chunk(b"IDAT", packed[:100]) + chunk(b"IDAT", b"") + chunk(b"IDAT", packed[100:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(beside) + pixels + chunk(b"IEND", b"")


def gifs() -> tuple[bytes, ...]:
    """One frame, frames with each way of disposal, a frame that covers a part, comments."""
    frames = [picture("P").rotate(angle) for angle in (0, 90, 180)]
    packed = sum(code << 3 * place for place, code in enumerate([4, 1] * 4 + [5])).to_bytes(4, "little")
    part = b"," + struct.pack("<4HB", 2, 0, 2, 2, 0) + b"\2\4" + packed + b"\0;"
    screen = b"GIF89a" + struct.pack("<HHBBB", 4, 2, 0x81, 0, 0) + bytes(range(12))
    return (
        encode(frames[0], "GIF"),
        encode(picture("1"), "GIF", interlace=0, comment=b"comment" * 40),
        encode(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=[1, 2, 3], loop=0, transparency=3),
        screen + part,
    )


def webps() -> tuple[bytes, ...]:
    """Lossy, lossless, with alpha of its own chunk, moving, with a profile and metadata."""
    rgba = picture("RGBA")
    return (
        encode(picture(), "WEBP"),
        encode(rgba, "WEBP", lossless=True),
        encode(rgba, "WEBP", quality=40, alpha_quality=50),
        encode(rgba, "WEBP", save_all=True, append_images=[rgba.rotate(180)], minimize_size=True),
        encode(picture(), "WEBP", icc_profile=code_points.adobe_rgb(), exif=metadata(), xmp=b"<x/>"),
    )


def bmps() -> tuple[bytes, ...]:
    """24, 32, 8 and 1 bits, masks of 16 bits, the header of OS/2, a profile in a header of version 5."""
    pixels = picture("RGB", 8, 8).tobytes()
    masks = struct.pack("<LllHHLLllLL", 40, 8, 8, 1, 16, 3, 128, 2835, 2835, 0, 0)
    masks += struct.pack("<3L", 0xF800, 0x7E0, 0x1F)
    os2 = struct.pack("<LHHHH", 12, 8, 8, 1, 24)
    profile = code_points.adobe_rgb()
    v5 = struct.pack("<LllHHLLllLL", 124, 8, 8, 1, 24, 0, 192, 2835, 2835, 0, 0) + bytes(16) + b"DEBM" + bytes(52)
    v5 = (v5 + struct.pack("<LLL", 124 + 192, len(profile), 0)).ljust(124, b"\0")
    made = [(masks, pixels[:128]), (os2, pixels), (v5, pixels + profile)]
    files = [b"BM" + struct.pack("<LHHL", 14 + len(a) + len(b), 0, 0, 14 + len(a)) + a + b for a, b in made]
    return (*files, *(encode(picture(mode), "BMP") for mode in ("RGB", "RGBA", "P", "L", "1")))


def tiffs() -> tuple[bytes, ...]:
    """Every compression, strips and tiles, planes apart, BigTIFF, several images, either order of bytes."""
    rgb = picture()
    packed = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "lzma", "zstd")
    return (
        *(encode(rgb, "TIFF", compression=name, strip_size=WIDTH * 3 * 16) for name in packed),
        *(encode(picture("1"), "TIFF", compression=name) for name in ("group3", "group4", "tiff_ccitt")),
        encode(rgb, "TIFF", compression="tiff_lzw", tiffinfo={317: 2}, icc_profile=code_points.adobe_rgb()),
        encode(picture("CMYK"), "TIFF"),
        encode(picture("LAB"), "TIFF"),
        encode(picture("YCbCr"), "TIFF", compression="jpeg"),
        encode(picture("RGBA"), "TIFF", big_tiff=True),
        encode(picture("P"), "TIFF", save_all=True, append_images=[rgb], exif=metadata()),
        encode(Image.fromarray(np.arange(96, dtype=np.uint16).reshape(8, 12) * 600), "TIFF"),
        *(tiled_tiff(order, packed) for order in "<>" for packed in (False, True)),
    )


def tiled_tiff(order: str = "<", packed: bool = True, size: tuple[int, int] = (48, 40), tile: int = 16) -> bytes:
    """A grey TIFF of square tiles that share one place in the file, deflated or not."""
    width, height = size
    count = -(-width // tile) * -(-height // tile)
    pixels = picture("L", tile, tile).tobytes()
    pixels = zlib.compress(pixels) if packed else pixels
    start = 8
    tables = struct.pack(f"{order}{count}I", *[start] * count), struct.pack(f"{order}{count}I", *[len(pixels)] * count)
    data = (b"II*\0" if order == "<" else b"MM\0*") + bytes(4) + pixels + bytes(len(pixels) % 2)
    places = len(data), len(data) + 4 * count
    data += b"".join(tables)
    tags = {256: width, 257: height, 258: 8, 259: 8 if packed else 1, 262: 1, 277: 1, 322: tile, 323: tile}
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items()]
    values = [
        struct.unpack(f"{order}I", table)[0] if count == 1 else place
        for table, place in zip(tables, places, strict=True)
    ]
    entries += [
        struct.pack(f"{order}HHII", tag, 4, count, value) for tag, value in zip((324, 325), values, strict=True)
    ]
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack(f"{order}I", len(data)) + data[8:] + directory


def avifs() -> tuple[bytes, ...]:
    """One image, with alpha, moving, with metadata, a grid; `mdat` stands first, so that its place never changes."""
    rgb, rgba = picture(), picture("RGBA")
    still = encode(rgb, "AVIF", speed=10)
    return (
        _data_first(still),
        _data_first(encode(rgba, "AVIF", speed=10, exif=metadata(), icc_profile=code_points.adobe_rgb())),
        encode(rgb, "AVIF", speed=10, save_all=True, append_images=[rgba.rotate(180).convert("RGB")]),
        avif_grid(encode(picture("RGB", 64, 64), "AVIF", speed=10)),
    )


def box(kind: bytes, body: bytes) -> bytes:
    """A box of an ISO media file."""
    return struct.pack(">I", 8 + len(body)) + kind + body


def _data_first(file: bytes) -> bytes:
    """Put the `mdat` of a file of one extent for each item in front of its `meta`."""
    first = int.from_bytes(file[:4], "big")
    size = int.from_bytes(file[first : first + 4], "big")
    meta, data = bytearray(file[first : first + size]), file[first + size :]
    at = meta.index(b"iloc") + 4
    (items,) = struct.unpack_from(">H", meta, at + 6)
    for item in range(items):  # version 0, 4 bytes for offsets and lengths, none for bases
        place = at + 8 + 14 * item + 6
        (offset,) = struct.unpack_from(">I", meta, place)
        struct.pack_into(">I", meta, place, offset - size)
    return file[:first] + data + bytes(meta)


def avif_grid(tile: bytes, rows: int = 1, columns: int = 2) -> bytes:
    """A grid of copies of an AVIF of 64x64: all its items share one place in the file."""
    (size,) = struct.unpack(">I", tile[(at := tile.index(b"mdat")) - 4 : at])
    payload = tile[at + 4 : at - 4 + size]
    (size,) = struct.unpack(">I", tile[(at := tile.index(b"av1C")) - 4 : at])
    configuration = tile[at - 4 : at - 4 + size]
    count = rows * columns
    grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, 64 * columns, 64 * rows)
    head = box(b"ftyp", b"avif\0\0\0\0avifmif1miaf")
    start = len(head) + 8
    names = [(1, b"grid"), *((2 + index, b"av01") for index in range(count))]
    places = [(start, len(grid))] + [(start + len(grid), len(payload))] * count
    infos = b"".join(box(b"infe", struct.pack(">IHH4s", 2 << 24, item, 0, kind) + b"\0") for item, kind in names)
    located = b"".join(
        struct.pack(">HHHII", item, 0, 1, *place) for (item, _), place in zip(names, places, strict=True)
    )
    sides = box(b"ispe", struct.pack(">III", 0, 64 * columns, 64 * rows)) + box(b"ispe", struct.pack(">III", 0, 64, 64))
    properties = sides + box(b"pixi", bytes([0, 0, 0, 0, 3, 8, 8, 8])) + configuration
    uses = [bytes([2, 1, 3]), *[bytes([3, 2, 3, 0x84])] * count]
    used = b"".join(struct.pack(">H", item) + use for (item, _), use in zip(names, uses, strict=True))
    meta = bytes(4) + box(b"hdlr", bytes(8) + b"pict" + bytes(13)) + box(b"pitm", bytes(4) + struct.pack(">H", 1))
    meta += box(b"iloc", bytes(4) + b"\x44\0" + struct.pack(">H", len(names)) + located)
    meta += box(b"iinf", bytes(4) + struct.pack(">H", len(names)) + infos)
    meta += box(b"iref", bytes(4) + box(b"dimg", struct.pack(f">HH{count}H", 1, count, *range(2, 2 + count))))
    meta += box(b"iprp", box(b"ipco", properties) + box(b"ipma", bytes(4) + struct.pack(">I", len(names)) + used))
    return head + box(b"mdat", grid + payload) + box(b"meta", meta)


def ppms() -> tuple[bytes, ...]:
    """Bits, grey and colours, with comments; text and floats, which are refused."""
    files = [encode(picture(mode), "PPM") for mode in ("1", "L", "RGB")]
    odd = (b"P2 2 1 255 1 2", b"P3\n1 1\n255\n1 2 3", b"Pf\n2 1\n-1.0\n" + bytes(8), b"P5 2 1 65535\n" + bytes(4))
    return (*files, b"P6 # a comment\n# another\n3 1 # and one\n255\n" + bytes(9), *odd)


def profiles() -> tuple[bytes, ...]:
    """ICC profiles of matrices, curves, tables of colours and pipelines of floats."""
    identity = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([3, 3, 2, 0]) + struct.pack(">9i", *[65536, 0, 0, 0] * 2, 65536)
    table += identity * 3 + bytes(range(24)) + identity * 3
    matrix = b"matf" + bytes(4) + struct.pack(">HH12f", 3, 3, *[0.9, 0, 0, 0] * 3)
    pipeline = b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, 2) + struct.pack(">II", 32, len(matrix)) * 2 + matrix
    grey = b"curv" + bytes(4) + struct.pack(">I", 256) + struct.pack(">256H", *(level * 200 for level in range(256)))
    return (
        code_points.matrix_profile(code_points.PRIMARIES[9], code_points.gamma_curve(2.4)),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        profile({b"A2B0": table}),
        profile({b"D2B0": pipeline, b"A2B0": table}),
        profile({b"kTRC": grey, b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)}, b"GRAY"),
    )


def profile(tags: dict[bytes, bytes], space: bytes = b"RGB ") -> bytes:
    """An ICC profile of version 4.3 with these tags."""
    return joined_profile(profile_head(space), [(name, body, len(body)) for name, body in tags.items()])


def profile_head(space: bytes) -> bytes:
    """The first 128 bytes of a profile whose colours are in `space`."""
    head = struct.pack(">I4sI4s4s4s", 0, bytes(4), 0x04300000, b"mntr", space, b"XYZ ") + bytes(12) + b"acsp"
    return (head + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0")


def joined_profile(head: bytes, tags: Sequence[tuple[bytes, bytes, int]]) -> bytes:
    """Put a head and tags (name, body, announced length) together; the length of the whole is right."""
    table, bodies = bytearray(struct.pack(">I", len(tags))), bytearray()
    for name, body, length in tags:
        table += name.ljust(4)[:4] + struct.pack(">II", 132 + 12 * len(tags) + len(bodies), length % (1 << 32))
        bodies += body + bytes(-len(body) % 4)
    size = struct.pack(">I", 128 + len(table) + len(bodies))
    return b"".join([size, head[4:128].ljust(124, b"\0"), table, bodies])
