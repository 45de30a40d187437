# SPDX-License-Identifier: Apache-2.0
"""The files that latentwire reads and writes: image formats, suffixes of file names, the names of models."""

import os
from enum import StrEnum
from pathlib import Path


class ImageFormat(StrEnum):
    """An image format that can be written."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    AVIF = "avif"

    @property
    def suffix(self) -> str:
        """The end of a file name of this format, with its dot."""
        return ".jpg" if self is ImageFormat.JPEG else f".{self}"

    @property
    def pillow_name(self) -> str:
        """The format's name in Pillow."""
        return self.upper()


# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
))
# fmt: on
"""Suffixes of image files, in any case; other files of a folder are ignored."""
LATENT_SUFFIXES = frozenset((".safetensors",))
PAYLOAD_SUFFIXES = frozenset((".lat",))
SAFETENSORS_SUFFIXES = (".safetensors", ".sft")
PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth")
"""Pickles that somebody names as such. A `.bin` must be allowed: diffusers falls back to it unasked."""
WEIGHT_SUFFIXES = (*SAFETENSORS_SUFFIXES, *PICKLE_SUFFIXES, ".bin")
PAYLOAD_MODEL = "f8c32"
"""The model that makes a payload where no model is named: it was trained for the bytes of payloads."""


def model_name(source: str) -> str:
    """Map the source of a model, see `load_autoencoder`, to its last path component without a suffix of weights.

    A link keeps its own name: in a Hugging Face cache it leads to a file whose name is a digest.
    """
    path = Path(os.path.abspath(Path(source).expanduser()))
    return path.stem if path.suffix.lower() in WEIGHT_SUFFIXES else path.name
