# SPDX-License-Identifier: Apache-2.0
"""AVIF files whose boxes and AV1 streams contradict each other are refused; those that encoders write are not."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from latentwire_codec.images import av1, boxes
from latentwire_codec.images.av1 import largest_frame
from latentwire_codec.images.boxes import check_frames
from latentwire_codec.images.files import read_image
from latentwire_core.errors import ImageError
from tests.image_files import AvifItem, av1_sequence_header, avif_boxes

DELIMITER = b"\x12\x00"
SIDES = st.integers(1, 65_536)
HUGE = av1_sequence_header(16_384, 8192)
SMALL = AvifItem(b"av01", (128, 64), DELIMITER + av1_sequence_header(128, 64))
GRID = AvifItem(b"grid", (128, 64), bytes([0, 0, 0, 1]) + struct.pack(">HH", 128, 64))


@given(width=SIDES, height=SIDES, reduced=st.booleans())
def test_a_sequence_header_tells_the_largest_frame(width: int, height: int, reduced: bool) -> None:
    stream = DELIMITER + av1_sequence_header(width, height, reduced=reduced)
    assert largest_frame(stream) == (width, height)


def test_the_largest_of_several_headers_counts() -> None:
    streams = [av1_sequence_header(*size) for size in ((64, 64), (300, 200), (100, 100))]
    assert largest_frame(b"".join(streams)) == (300, 200)


def test_a_stream_that_ends_too_early_tells_what_is_whole() -> None:
    assert largest_frame(av1_sequence_header(64, 64) + HUGE[:5]) == (64, 64)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_stream_for_which_the_decoder_speaks(stream: bytes) -> None:
    assert len(largest_frame(stream)) == 2


def test_a_stream_of_many_units_is_refused() -> None:
    with pytest.raises(ImageError, match=f"more than {av1.MAX_UNITS} units"):
        largest_frame(DELIMITER * (av1.MAX_UNITS + 1))


@pytest.mark.parametrize("extents", [1, 3])
@pytest.mark.parametrize("in_idat", [False, True])
def test_a_frame_that_is_larger_than_its_picture_is_refused(in_idat: bool, extents: int) -> None:
    item = AvifItem(b"av01", (128, 64), DELIMITER + HUGE)
    with pytest.raises(ImageError, match="is 128x64, and has a frame of 16384x8192; save it again"):
        check_frames(avif_boxes([item], in_idat=in_idat, extents=extents))


@pytest.mark.parametrize("reference", [(b"auxl", 2, [1]), (b"dimg", 1, [2])])
@pytest.mark.parametrize(
    "other", [AvifItem(b"av01", (128, 64), HUGE), AvifItem(b"av01", (16_384, 8192), SMALL.data)], ids=["frame", "ispe"]
)
def test_the_frames_and_sizes_of_alpha_and_of_tiles_count(reference: Any, other: AvifItem) -> None:
    primary = GRID if reference[0] == b"dimg" else SMALL
    with pytest.raises(ImageError, match="is 128x64, and has a frame of 16384x8192"):
        check_frames(avif_boxes([primary, other], [reference]))


def test_items_that_are_not_decoded_may_be_of_any_size() -> None:
    check_frames(avif_boxes([SMALL, AvifItem(b"av01", (16_384, 8192), HUGE)], [(b"thmb", 2, [1])]))


def test_many_tiles_that_together_are_much_larger_than_the_picture_are_refused() -> None:
    tile = AvifItem(b"av01", (1024, 1024), av1_sequence_header(1024, 1024))
    with pytest.raises(ImageError, match=r"and its 5 frames have 5242880 pixels; at most \d+ are decoded"):
        check_frames(avif_boxes([GRID, *[tile] * 5], [(b"dimg", 1, range(2, 7))]))


def test_bytes_that_many_tiles_share_are_refused() -> None:
    tile = AvifItem(b"av01", (64, 64), bytes(8192))
    with pytest.raises(ImageError, match="decodes the same bytes again and again"):
        check_frames(avif_boxes([GRID, *[tile] * 6], [(b"dimg", 1, range(2, 8))]))


@pytest.mark.parametrize("side", [(1, 1), (3, 5), (65, 127), (500, 300)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_what_an_encoder_writes_is_accepted(side: tuple[int, int], mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (side[1], side[0], 4), np.uint8)
    image = Image.fromarray(pixels, "RGBA").convert(mode)
    ways: list[dict[str, Any]] = [{"subsampling": each} for each in ("4:4:4", "4:2:2", "4:2:0", "4:0:0")]
    for way in [*ways, {"quality": 100}, {"tile_rows": 1, "tile_cols": 1}]:
        file = io.BytesIO()
        image.save(file, "AVIF", speed=10, **way)
        check_frames(file.getvalue())
        assert read_image(file.getvalue()).shape == (side[1], side[0], 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_first_frame_of_a_sequence_is_looked_at(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [Image.new("RGBA", (40, 30), (40 * shade, 0, 0, 200)).convert(mode) for shade in range(3)]
    file = io.BytesIO()
    images[0].save(file, "AVIF", save_all=True, append_images=images[1:])
    data = file.getvalue()
    check_frames(data)
    monkeypatch.setattr(boxes, "SPARE_PIXELS", 0)
    check_frames(data)
    size = data.index(struct.pack(">II", 40 << 16, 30 << 16), data.index(b"tkhd"))
    with pytest.raises(ImageError, match="is 40x29, and has a frame of 40x30"):
        check_frames(data[:size] + struct.pack(">II", 40 << 16, 29 << 16) + data[size + 8 :])
