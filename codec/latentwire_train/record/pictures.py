# SPDX-License-Identifier: Apache-2.0
"""Images uint8 (B,3,H,W) -> one picture, uint8 (h,w,3), that shows many of them side by side."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentwire_codec.images.geometry import Pixels
from latentwire_core.errors import TensorError

COLUMNS = 8
MAX_WIDTH = 2100
"""The largest width of a picture, pixels; with larger images it has fewer columns."""
MIN_SIDE, MAX_SIDE = 96, 512
"""Smaller images are enlarged by repeating pixels; larger images are scaled down."""
MARGIN = 6
PAPER = 208  # neither the white nor the black that images may end with


def reconstruction_grid(originals: Tensor, reconstructions: Tensor) -> Pixels:
    """Map pairs of images, both uint8 (B,3,H,W), to a picture of eight pairs to a row, originals above.

    Raises:
        TensorError: a shape or dtype is not as stated.
    """
    if originals.shape != reconstructions.shape:
        shapes = f"{tuple(originals.shape)}, reconstructions {tuple(reconstructions.shape)}"
        raise TensorError(f"originals have the shape {shapes}; both must be equal")
    upper, lower = _tiles(originals), _tiles(reconstructions)
    # A pair is one tile: the line between the two is thinner than the margin around them.
    line = np.full((MARGIN // 3, *upper[0].shape[1:]), PAPER, np.uint8)
    return _arranged([np.concatenate([above, line, below]) for above, below in zip(upper, lower, strict=True)])


def sample_grid(images: Tensor) -> Pixels:
    """Map images uint8 (B,3,H,W) to a picture with eight images to a row; raise TensorError for other tensors."""
    return _arranged(_tiles(images))


def _tiles(images: Tensor) -> list[Pixels]:
    """Map images to arrays (h,w,3), large enough to see and small enough to show."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
        raise TensorError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; a picture needs uint8 (B,3,H,W), B >= 1"
        )
    height, width = images.shape[-2:]
    factor = -(-MIN_SIDE // max(height, width))
    tiles = []
    for image in images.cpu().permute(0, 2, 3, 1).numpy():
        if max(height, width) > MAX_SIDE:
            width_to, height_to = (max(1, round(side * MAX_SIDE / max(height, width))) for side in (width, height))
            tiles.append(np.asarray(Image.fromarray(image).resize((width_to, height_to), Image.Resampling.LANCZOS)))
        else:
            tiles.append(image.repeat(factor, axis=0).repeat(factor, axis=1))
    return tiles


def _arranged(tiles: Sequence[Pixels]) -> Pixels:
    height, width = tiles[0].shape[:2]
    columns = max(1, min(COLUMNS, len(tiles), (MAX_WIDTH - MARGIN) // (width + MARGIN)))
    rows = -(-len(tiles) // columns)
    canvas = np.full((MARGIN + rows * (height + MARGIN), MARGIN + columns * (width + MARGIN), 3), PAPER, np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top, left = MARGIN + row * (height + MARGIN), MARGIN + column * (width + MARGIN)
        canvas[top : top + height, left : left + width] = tile
    return canvas
