# SPDX-License-Identifier: Apache-2.0
"""A model and a size -> the files that clients send, and the same work in this process for comparison."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from benchmarks.report.photographs import photograph
from benchmarks.serving.forms import IMAGE, LATENTS
from latentwire_client import Latents
from latentwire_codec.images import pixels
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.runtime.autoencoder import Autoencoder

JPEG_QUALITY = 90
SHIFT = 24
"""Pixels by which one image of a stream differs from the next."""


@dataclass(frozen=True)
class InProcess:
    """A model in this process, from the arrays that a client sends to the arrays that it receives.

    Attributes:
        model: loaded with the server's settings.
        image: uint8 (H,W,3).
        latents: float16 (1,C,h,w).
    """

    model: Autoencoder
    image: Pixels
    latents: npt.NDArray[np.float16]

    @classmethod
    def of(cls, model: Autoencoder, side: int) -> "InProcess":
        """Take a photograph of `side` pixels a side, and encode it."""
        image = photograph(side, side)
        return cls(model, image, _encode(model, image))

    def rate(self, operation: str, seconds: float) -> float:
        """Return images per second, one after the other, over `seconds` and at least one image."""
        work: Callable[[], object] = self.encode if operation == "encode" else self.decode
        begun = time.perf_counter()
        done = 0
        while True:
            work()
            done += 1
            elapsed = time.perf_counter() - begun
            if elapsed >= seconds:
                return done / elapsed

    def encode(self) -> npt.NDArray[np.float16]:
        """Map the image to its latents."""
        return _encode(self.model, self.image)

    def decode(self) -> Pixels:
        """Map the latents to an image."""
        decoded: Pixels = self.model.decode(torch.from_numpy(self.latents).float(), pixels.to_uint8)[0].numpy()
        return decoded

    def write(self, folder: Path, stream_images: int) -> Path:
        """Write the inputs of clients into a folder, with `stream_images` different images; return the folder."""
        (folder / "stream").mkdir(parents=True)
        np.save(folder / f"{IMAGE}.npy", self.image)
        for carrier in ("jpeg", "png"):
            Image.fromarray(self.image).save(folder / f"{IMAGE}.{carrier}", quality=JPEG_QUALITY)
        for number in range(stream_images):
            rolled = Image.fromarray(np.roll(self.image, number * SHIFT, axis=1))
            rolled.save(folder / "stream" / f"{number:04}.jpeg", quality=JPEG_QUALITY)
        spec = self.model.spec
        Latents(
            self.latents, image_size=self.image.shape[:2], latent_space=spec.latent_space,
            weights_digest=spec.weights_digest,
        ).save(folder / LATENTS)  # fmt: skip
        return folder


def _encode(model: Autoencoder, image: Pixels) -> npt.NDArray[np.float16]:
    latents = model.encode(pixels.to_float(torch.from_numpy(image).unsqueeze(0))).mode()
    found: npt.NDArray[np.float16] = latents.half().numpy()
    return found
