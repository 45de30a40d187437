# SPDX-License-Identifier: Apache-2.0
"""Attribute vectors, directions in latent space like `Smiling`: latents -> edited latents; vectors <-> a file."""

import json
import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from latentwire_core.files import read_tensors, to_safetensors, write_whole
from latentwire_core.kinds import LatentKind
from latentwire_core.latents import Latents
from latentwire_lab.accuracy import HeldOut
from latentwire_lab.paths import check_same_space

Method = Literal["means", "logistic"]

FORMAT = "latentwire.attributes/1"
ORIGIN = ("model", "latent_space", "weights_digest")


def scores(
    values: npt.NDArray[np.floating], direction: npt.NDArray[np.floating], offset: float
) -> npt.NDArray[np.float64]:
    """Map points (B,...) to (B,): the length of each point along the direction, in lengths of the direction."""
    wide = direction.astype(np.float64).ravel()
    return np.asarray(values.reshape(len(values), -1) @ (wide / (wide @ wide)) - offset)


@dataclass(frozen=True, eq=False)
class AttributeVector:
    """A direction in latent space.

    Attributes:
        name: name of the attribute, such as `Smiling`.
        direction: float32 (C,h,w), raw. Added once, it raises the score by 1: from the average of images without the
            attribute to the average of images with it.
        offset: offset of the score.
        fitted_with: number of images with the attribute that it was fitted to.
        fitted_without: number of images without the attribute that it was fitted to.
        held_out: how well it recognises the attribute in other images.
    """

    name: str
    direction: npt.NDArray[np.float32]
    offset: float
    fitted_with: int
    fitted_without: int
    held_out: HeldOut

    def score(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Map raw latents (B,C,h,w) to (B,): on average 0 without the attribute and 1 with it; 1/2 is the limit."""
        return scores(values, self.direction, self.offset)


@dataclass(frozen=True, eq=False)
class Attributes:
    """The attribute vectors of one model.

    Attributes:
        vectors: name -> vector.
        method: the method of fitting.
        image_size: (height, width) of the images; None: unknown.
        model: name of the model that made the latents; empty: unknown.
        latent_space: the latent space of the vectors; empty: unknown.
        weights_digest: digest of the model's weights; empty: unknown.
    """

    vectors: Mapping[str, AttributeVector]
    method: Method
    image_size: tuple[int, int] | None = None
    model: str = ""
    latent_space: str = ""
    weights_digest: str = ""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape (C,h,w) of latents that can be edited."""
        return next(iter(self.vectors.values())).direction.shape

    def edit(self, latents: Latents, strengths: Mapping[str, float]) -> Latents:
        """Add attribute vectors to the latents of B images: values + the sum of strength * direction.

        Args:
            latents: raw latents; for moments the mean is taken.
            strengths: attribute -> strength; 1 is the difference of an average image with the attribute to an average
                image without it.

        Returns:
            float32 latents.

        Raises:
            LatentSpaceMismatch: the latents are of another latent space, or of other weights if the space has no name.
            ValueError: the latents are scaled or of another shape, or there is no such attribute.
        """
        check_same_space(latents, self)
        if latents.scaled:
            raise ValueError("the latents are scaled; attribute vectors are for raw ones")
        if latents.values.shape[1:] != self.latent_shape:
            size = "" if self.image_size is None else f"; encode with size={self.image_size}"
            raise ValueError(f"latents have the shape {latents.values.shape[1:]}, vectors {self.latent_shape}{size}")
        values = latents.values.astype(np.float32)
        for name, strength in strengths.items():
            if name not in self.vectors:
                raise ValueError(f"there is no attribute {name!r}; there are {', '.join(self.vectors)}")
            values = values + np.float32(strength) * self.vectors[name].direction
        return replace(latents, values=values, logvar=None, kind=LatentKind.MODE)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file, whole or not at all, and the folders above it.

        The file holds the tensors `directions` (A,C,h,w) and `offsets` (A,), and all other fields as metadata.

        Raises:
            OSError: the file cannot be written.
        """
        path = Path(path)
        vectors = list(self.vectors.values())
        described = [
            {"name": each.name, "fitted": [each.fitted_with, each.fitted_without], "held_out": astuple(each.held_out)}
            for each in vectors
        ]
        metadata = {
            "format": FORMAT,
            "method": self.method,
            **{name: getattr(self, name) for name in ORIGIN},
            "image_size": json.dumps(self.image_size),
            "attributes": json.dumps(described),
        }
        tensors = {
            "directions": np.stack([vector.direction for vector in vectors]),
            "offsets": np.array([vector.offset for vector in vectors]),
        }
        write_whole(path, to_safetensors(tensors, metadata))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Attributes":
        """Read a file that `save` wrote.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is not a safetensors file of attribute vectors.
        """
        path = Path(path)
        tensors, metadata = read_tensors(path, "attribute vectors", FORMAT)
        try:
            directions, offsets = tensors["directions"], tensors["offsets"]
            described = json.loads(metadata["attributes"])
            if directions.ndim != 4 or directions.dtype != np.float32 or not directions.size:
                raise ValueError(f"directions are {directions.dtype} {directions.shape}; float32 (A,C,h,w) is needed")
            vectors = {}
            for each, direction, offset in zip(described, directions, offsets, strict=True):
                (fitted_with, fitted_without, *_), held_out = map(int, each["fitted"]), map(int, each["held_out"])
                vectors[each["name"]] = AttributeVector(
                    each["name"], direction, float(offset), fitted_with, fitted_without, HeldOut(*held_out)
                )
            if len(vectors) != len(described) or metadata["method"] not in get_args(Method):
                raise ValueError("an attribute is there twice, or the method is unknown")
            size = json.loads(metadata["image_size"])
            image_size = None if size is None else (int(size[0]), int(size[1]))
            origin = (metadata.get(name, "") for name in ORIGIN)
            return cls(vectors, metadata["method"], image_size, *origin)  # type: ignore[arg-type]
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a whole file of attribute vectors: {error}") from error
