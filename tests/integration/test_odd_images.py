# SPDX-License-Identifier: Apache-2.0
"""Odd image files are read right, or refused by name, through the HTTP door and through Open Inference."""

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig
from tests.image_files import (
    COLOUR,
    RAMP,
    avif_of,
    bmp,
    chunk,
    encode,
    gif_of_a_part,
    jpeg_of_scans,
    plain,
    rgb_tiff,
    twelve_bits,
    with_chunks,
)
from tests.integration.test_oip import files, talk

Latents = np.ndarray
Door = Callable[[bytes], Latents | str]
"""An image file -> its latents, or the message with which it is refused as an invalid argument."""


@pytest.fixture(scope="module")
def doors(tiny_kl: Path) -> Iterator[dict[str, Door]]:
    """Both doors of one server."""
    config = ServerConfig(models=(ModelSource("tiny", str(tiny_kl)),), port=0, http_port=0)
    with background(config) as server:
        talking = talk(f"127.0.0.1:{server.port}")
        triton = next(talking)

        def http(file: bytes) -> Latents | str:
            answer = requests.post(f"http://127.0.0.1:{server.http_port}/", data=file)
            if not answer.ok:
                assert answer.status_code == 400, answer.text
                return str(answer.json()["error"])
            shape, dtype = json.loads(answer.headers["shape"]), answer.headers["dtype"]
            return np.frombuffer(answer.content, dtype).reshape(shape).astype(np.float32)

        def open_inference(file: bytes) -> Latents | str:
            answer = triton("infer", model="tiny.encode", inputs=[("IMAGE_FILE", "BYTES", files(file))])
            if not isinstance(answer, dict):
                status, message = answer
                assert status == "StatusCode.INVALID_ARGUMENT", answer
                return str(message)
            latents: Latents = answer["arrays"]["LATENTS"]
            return latents

        yield {"HTTP": http, "Open Inference": open_inference}
        assert next(talking, None) is None


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=2).astype(np.uint8)


def one_colour(side: int, colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((side, side, 3), colour, np.uint8)


WHITE, RED = (255, 255, 255), (255, 0, 0)
DISPLAY_P3 = (12, 13)
# A file -> the pixels that it has.
READ: dict[str, tuple[Callable[[], bytes], np.ndarray]] = {
    "12-bit TIFF": (twelve_bits, grey(np.rint(RAMP * (255 / 4095)))),
    "AVIF with code points": (
        lambda: avif_of(Image.new("RGB", (16, 16), COLOUR), *DISPLAY_P3), one_colour(16, (217, 42, 23)),
    ),
    "GIF of a part": (gif_of_a_part, np.array([[WHITE, WHITE, RED, RED]] * 2, np.uint8)),
    "BMP without alpha": (lambda: bmp(0), one_colour(2, (200, 20, 10))),
    "PNG with a large text": (
        lambda: with_chunks(plain("PNG"), chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(3 << 20)))),
        one_colour(16, COLOUR),
    ),
    "PNG with a damaged text": (
        lambda: with_chunks(plain("PNG"), chunk(b"tEXt", b"x\0text", damage=1)), one_colour(16, COLOUR),
    ),
    "PNG with an empty gamma": (lambda: with_chunks(plain("PNG"), chunk(b"gAMA", b"")), one_colour(16, COLOUR)),
}  # fmt: skip
TOLERANCES = {"AVIF with code points": 0.01}
"""What lossy files take: a level in each channel. The colours without their code points are 0.08 away."""
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG of many scans": (lambda: jpeg_of_scans(101), "more than 100 scans"),
    "preview": (lambda: rgb_tiff({254: 1}), "is a preview of another"),
    "raw file of a camera": (lambda: rgb_tiff({254: 1, 50706: 4}), "raw file (DNG)"),
    "HDR": (lambda: with_chunks(plain("PNG"), chunk(b"cICP", bytes([9, 16, 0, 1]))), "HDR (PQ"),
}


@pytest.mark.parametrize("door", ["HTTP", "Open Inference"])
@pytest.mark.parametrize("name", READ)
def test_an_odd_file_has_the_latents_of_its_right_pixels(doors: dict[str, Door], door: str, name: str) -> None:
    file, right = READ[name]
    there, here = (doors[door](data) for data in (file(), encode(Image.fromarray(right), "PNG")))
    assert not isinstance(there, str), there
    assert not isinstance(here, str), here
    np.testing.assert_allclose(there, here, rtol=0, atol=TOLERANCES.get(name, 0))


@pytest.mark.parametrize("door", ["HTTP", "Open Inference"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_right_is_refused_by_name(doors: dict[str, Door], door: str, name: str) -> None:
    file, message = REFUSED[name]
    answer = doors[door](file())
    assert isinstance(answer, str)
    assert message in answer
