# SPDX-License-Identifier: Apache-2.0
"""Image files -> latents, and latents -> pixels, for commands that make one picture of several images."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Unpack

import numpy as np

from latentwire_cli.exit_status import reason
from latentwire_cli.picture import Pixels
from latentwire_cli.report import Batch
from latentwire_client.client import Client
from latentwire_client.config import EncodeOptions
from latentwire_client.errors import InvalidRequest, TooLarge
from latentwire_core.latents import Latents


def encoded(
    client: Client, paths: Sequence[Path], batch: Batch, **options: Unpack[EncodeOptions]
) -> Iterator[tuple[int, Latents]]:
    """Yield the index and the latents of each image, in order; the batch lists an image that fails."""
    with closing(client.encode_stream(paths, **options)) as stream, batch.until_broken_off():
        for item in stream.ordered():
            with batch.item(paths[item.index]):
                item.get()
            if item.result is not None:
                yield item.index, item.result


def encoded_one(client: Client, path: Path, size: tuple[int, int] | None = None) -> Latents:
    """Map an image to the mode of its latents, float32; `size` is that of `EncodeOptions`.

    Raises:
        OSError: the file cannot be read.
        ValueError: the server refuses the image; the message names the file.
        LatentwireError: the server cannot answer.
    """
    try:
        return client.encode(path, kind="mode", dtype="float32", size=size)
    except (InvalidRequest, TooLarge) as error:
        raise ValueError(f"{path}: {reason(error)}") from error


def decoded(client: Client, latents: Latents) -> list[Pixels]:
    """Map the latents of B images to B arrays uint8 (H,W,3); the first failure is raised."""
    with Batch("decoding", len(latents)) as batch, closing(client.decode_stream(latents.split())) as stream:
        images = []
        for item in stream.ordered():
            images.append(np.asarray(item.get()))
            batch.done()
        return images


def as_seen(data: bytes, size: tuple[int, int] | None) -> Pixels:
    """Map an image file to the pixels that a model saw of it: uint8 (H,W,3), upright, opaque, sRGB.

    Args:
        data: the bytes of the file.
        size: (height, width) to which the image was scaled and cropped; None: its own size.
    """
    from latentwire_codec.images.files import ImageLimits, read_image
    from latentwire_codec.images.geometry import resize_to_cover

    # The server has accepted the file, so that no limit is needed here.
    pixels = read_image(data, ImageLimits(max_side=2**31, max_pixels=2**62))
    height, width = size or pixels.shape[:2]
    return resize_to_cover(pixels, width, height)
