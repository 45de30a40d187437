# SPDX-License-Identifier: Apache-2.0
"""The name of a form -> a call: image files or raw tensors, encoded or decoded.

A client's process reads its inputs from files, so that it needs no model to make them.
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
    """The operation, and how images travel.

    Attributes:
        operation: `encode` or `decode`.
        carrier: how the image travels: RAW, uint8 (H,W,3), or the format of a file.
    """

    operation: str
    carrier: str

    @property
    def name(self) -> str:
        """Return its name in tables and options."""
        return f"{self.operation}-{self.carrier}"

    @classmethod
    def of(cls, name: str) -> "Form":
        """Map a name back to its form."""
        return cls(*name.split("-"))

    def call(self, client: Client, folder: Path, model: str = "") -> Callable[[], object]:
        """Read the input, and return a callable that sends it and waits for the answer.

        Args:
            client: a client of the server.
            folder: inputs, as `InProcess.write` writes them.
            model: a served name; empty: the server's first model.
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
"""JPEG is what folders mostly hold; PNG is the default format of decoded files."""
