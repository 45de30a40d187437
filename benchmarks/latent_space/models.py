# SPDX-License-Identifier: Apache-2.0
"""Names and settings of models -> trained ones, behind a server: images <-> latents through its client."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from latentwire_cli.display import TrainingDisplay
from latentwire_client import Client
from latentwire_client.info import ModelInfo
from latentwire_core.kinds import LatentKind
from latentwire_core.latents import Latents
from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig
from latentwire_train.loop import train
from latentwire_train.recipes import load_config

Pixels = npt.NDArray[np.uint8]

RECIPE = "vector"
CHUNK = 64  # the most images in a request
MIN_LOG_ROWS = 50


@dataclass(frozen=True)
class Recipe:
    """A model to train."""

    data: Path
    size: int  # side of an image, pixels
    steps: int
    batch_size: int  # number of images of a step
    settings: tuple[str, ...] = ()  # further settings, as `latentwire train --set` takes them

    def plain(self) -> "Recipe":
        """Return this recipe for a plain autoencoder."""
        return replace(self, settings=(*self.settings, "model.kind=ae"))

    def overrides(self) -> list[str]:
        """Return the overrides of the bundled recipe."""
        every = max(1, self.steps // 4)
        return [
            f"data.size={self.size}",
            f"schedule.steps={self.steps}",
            f"schedule.batch_size={self.batch_size}",
            f"run.log_every={max(1, self.steps // MIN_LOG_ROWS)}",
            f"run.evaluate_every={every}",
            f"run.save_every={every}",
            *self.settings,
        ]


def train_all(recipes: Mapping[str, Recipe], folder: Path) -> dict[str, str]:
    """Train the models that FOLDER/NAME does not hold yet; interrupted models go on.

    Returns:
        name -> source for `latentwire serve --model`: the weights that were best on held-out images.

    Raises:
        SystemExit: the training was interrupted.
    """
    sources = {}
    for name, recipe in recipes.items():
        config = load_config(RECIPE, recipe.overrides())
        with TrainingDisplay(recipe.data) as display:
            result = train(config, recipe.data, folder / name, display)
        if result.stopped:
            raise SystemExit(f"stopped in {result.folder}; the same command goes on from there")
        sources[name] = str(result.folder / "best")
    return sources


@dataclass(frozen=True)
class Model:
    """A model that a server holds, through a client of the server."""

    client: Client
    info: ModelInfo

    def encode(self, images: Pixels) -> Latents:
        """Map images uint8 (B,H,W,3) of one size to the moments of their posteriors, float32."""
        parts = [
            self.client.encode(images[start : start + CHUNK], kind="moments", dtype="float32", model=self.info.name)
            for start in range(0, len(images), CHUNK)
        ]
        logvars = [part.logvar for part in parts if part.logvar is not None]
        values = np.concatenate([part.values for part in parts])
        return replace(parts[0], values=values, logvar=np.concatenate(logvars) if logvars else None)

    def encode_photograph(self, image: Pixels, kind: str = "mode", *, scaled: bool = False) -> Latents:
        """Map an image uint8 (H,W,3) of any size to its latents, float32; see `Client.encode`."""
        photograph = Image.fromarray(image)
        return self.client.encode(photograph, kind=kind, scaled=scaled, dtype="float32", model=self.info.name)

    def decode(self, latents: Latents) -> Pixels:
        """Map latents to images uint8 (B,H,W,3)."""
        parts = []
        for start in range(0, len(latents), CHUNK):
            part = replace(latents, values=latents.values[start : start + CHUNK], logvar=None, kind=LatentKind.MODE)
            parts.append(self.client.decode_array(part, model=self.info.name))
        return np.concatenate(parts)

    def decode_points(self, points: npt.NDArray[np.floating]) -> Pixels:
        """Map points (B,d) of a vector model's latent space to images uint8 (B,S,S,3)."""
        return self.decode(Latents(points.astype(np.float32)[:, :, np.newaxis, np.newaxis]))

    def reconstruct(self, images: Pixels) -> Pixels:
        """Map images uint8 (B,H,W,3) to what is decoded from the modes of their posteriors."""
        return self.decode(self.encode(images).mode())

    def means(self, images: Pixels) -> npt.NDArray[np.float32]:
        """Map images uint8 (B,S,S,3) to the means of their posteriors, (B,C*h*w)."""
        return self.encode(images).values.reshape(len(images), -1).astype(np.float32)


@contextmanager
def serving(sources: Mapping[str, str]) -> Iterator[dict[str, Model]]:
    """Serve models from a thread of this process; yield them by name."""
    models = tuple(ModelSource(name, source) for name, source in sources.items())
    with (
        background(ServerConfig(port=0, models=models, drain_timeout_s=0)) as server,
        Client(f"127.0.0.1:{server.port}") as client,
    ):
        yield {info.name: Model(client, info) for info in client.info().models}
