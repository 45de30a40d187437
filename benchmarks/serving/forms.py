# SPDX-License-Identifier: Apache-2.0
"""The forms of a request -> what a client sends and gets: image files or raw tensors, to be encoded or decoded.

What is sent lies in files of a folder, so that a client's process needs nothing to make it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentwire_client import Client, Latents

IMAGE, LATENTS = "image", "latents.safetensors"
RAW = "raw"
CARRIERS = (RAW, "jpeg", "png")
OPERATIONS = ("encode", "decode")


@dataclass(frozen=True)
class Form:
    """What is asked for, and how images travel.

    Attributes:
        operation: `encode` or `decode`.
        carrier: of the image: RAW, uint8 (H,W,3), or the format of a file.
    """

    operation: str
    carrier: str

    @property
    def name(self) -> str:
        """Return it as tables and options have it."""
        return f"{self.operation}-{self.carrier}"

    @classmethod
    def of(cls, name: str) -> "Form":
        """Undo `name`."""
        return cls(*name.split("-"))

    def call(self, client: Client, folder: Path, model: str = "") -> Callable[[], object]:
        """Read what is sent, and return what sends it and waits for the answer.

        Args:
            client: of the server.
            folder: as `write_inputs` fills it.
            model: a served name; empty: the server's first.
        """
        if self.operation == "decode":
            latents = Latents.load(folder / LATENTS)
            if self.carrier == RAW:
                return lambda: client.decode_array(latents, model=model)
            return lambda: client.decode_files(latents, image_format=self.carrier, model=model)
        path = folder / f"{IMAGE}.{self.carrier}"
        if self.carrier == RAW:
            pixels = np.load(path.with_suffix(".npy"))
            return lambda: client.encode(pixels, model=model)
        data = path.read_bytes()
        return lambda: client.encode(data, model=model)


FORMS = tuple(Form(operation, carrier).name for operation in OPERATIONS for carrier in CARRIERS)
DEFAULT_FORMS = ("encode-raw", "encode-jpeg", "decode-raw", "decode-png")
"""What folders mostly hold, and what decoding answers unless told otherwise."""
