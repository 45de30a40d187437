# SPDX-License-Identifier: Apache-2.0
"""Latents (numpy arrays, with the model that made them) <-> safetensors files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from latentwire_core.files import read_tensors, to_safetensors, write_whole
from latentwire_core.kinds import LatentKind
from latentwire_core.noise import seeded_noise

Array = npt.NDArray[np.floating]

FORMAT = "latentwire.latents/1"
ORIGIN = ("model", "latent_space", "weights_digest")


@dataclass(frozen=True, eq=False)
class Latents:
    """The latents of B images of one size, with their origin as far as it is known.

    Attributes:
        values: float32 or float16 (B,C,h,w): the mode, the sample, or the mean of moments.
        logvar: like values; only with moments, None for a VAE without log-variance.
        kind: the view of the posterior in `values`.
        scaled: whether `values` is (raw - shift) * scale; else raw. Moments are always raw.
        image_size: (height, width) of the images before padding, to which decoding crops; None: no cropping.
        model: the name of the model that made them; empty: unknown.
        latent_space: the name of their space, such as `latentwire-f8c4@3`; empty: unknown.
        weights_digest: SHA-256 of the weights that made them, 64 hex digits; empty: unknown.

    Raises:
        ValueError: the shapes or dtypes do not fit each other.
    """

    values: Array
    logvar: Array | None = None
    kind: LatentKind = LatentKind.MODE
    scaled: bool = False
    image_size: tuple[int, int] | None = None
    model: str = ""
    latent_space: str = ""
    weights_digest: str = ""

    def __post_init__(self) -> None:
        """Check shapes and dtypes; accept a kind by its name."""
        object.__setattr__(self, "kind", LatentKind(self.kind))
        if self.values.ndim != 4 or 0 in self.values.shape:
            raise ValueError(f"latents have the shape {self.values.shape}; (B, C, h, w) is needed, each at least 1")
        if self.values.dtype.newbyteorder("=") not in (np.float32, np.float16):
            raise ValueError(f"latents are {self.values.dtype}; float32 or float16 is needed")
        if self.logvar is not None:
            if self.logvar.shape != self.values.shape:
                raise ValueError(f"logvar has the shape {self.logvar.shape}, the mean {self.values.shape}")
            if self.logvar.dtype != self.values.dtype:
                raise ValueError(f"logvar is {self.logvar.dtype}, the mean {self.values.dtype}; give both one dtype")
            if self.kind is not LatentKind.MOMENTS:
                raise ValueError(f"logvar comes with moments, not with a {self.kind}")
        if self.scaled and self.kind is LatentKind.MOMENTS:
            raise ValueError("moments are always raw")
        if self.image_size is not None and min(self.image_size) < 1:
            raise ValueError(f"image size is (height, width) = {self.image_size}; each must be at least 1")

    def __len__(self) -> int:
        """Return B."""
        return len(self.values)

    def __repr__(self) -> str:
        """Show the shape and the origin, not the numbers."""
        size = "" if self.image_size is None else f", image {self.image_size[1]}x{self.image_size[0]}"
        shape = "x".join(map(str, self.values.shape))
        scale = "scaled" if self.scaled else "raw"
        space = self.latent_space or "unnamed space"
        return f"Latents({self.kind} {shape} {self.values.dtype}, {scale}, {space}{size})"

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays."""
        return self.values.nbytes + (0 if self.logvar is None else self.logvar.nbytes)

    def mode(self) -> "Latents":
        """Return the mode of the posterior; raise ValueError where these latents are a sample."""
        if self.kind is LatentKind.SAMPLE:
            raise ValueError("these latents are a sample; their posterior's mode is not known")
        return replace(self, logvar=None, kind=LatentKind.MODE)

    def sample(self, seeds: Sequence[int]) -> "Latents":
        """Draw float32 latents from the posterior as the server does: mean + exp(logvar / 2) * seeded_noise.

        Raises:
            ValueError: there is no logvar, the number of seeds is not B, or a seed is not in 0..2^64-1.
        """
        if self.logvar is None:
            raise ValueError(f"these latents are a {self.kind} without logvar; encode with kind='moments' to sample")
        if len(seeds) != len(self):
            raise ValueError(f"{len(seeds)} seeds for {len(self)} images; give one for each")
        channels, height, width = self.values.shape[1:]
        noise = np.stack([seeded_noise(seed, (channels, height, width)) for seed in seeds])
        values = self.values.astype(np.float32) + np.exp(self.logvar.astype(np.float32) / 2) * noise
        return replace(self, values=values, logvar=None, kind=LatentKind.SAMPLE)

    def split(self) -> "list[Latents]":
        """Return B latents of one image each."""
        values = np.split(self.values, len(self))
        logvars = [None] * len(self) if self.logvar is None else np.split(self.logvar, len(self))
        return [replace(self, values=one, logvar=logvar) for one, logvar in zip(values, logvars, strict=True)]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file, whole or not at all, and the folders above it; raises OSError where writing fails.

        It holds the tensor `latents`, or `mean` and `logvar`, and everything else as metadata.
        """
        path = Path(path)
        if self.kind is LatentKind.MOMENTS:
            tensors = {"mean": self.values} | ({} if self.logvar is None else {"logvar": self.logvar})
        else:
            tensors = {"latents": self.values}
        metadata = {
            "format": FORMAT,
            "kind": str(self.kind),
            "scale": "scaled" if self.scaled else "raw",
            "shape": "x".join(map(str, self.values.shape)),
            **{name: getattr(self, name) for name in ORIGIN},
        }
        if self.image_size is not None:
            metadata |= {"image_height": str(self.image_size[0]), "image_width": str(self.image_size[1])}
        # Not save_file, which makes files that only their owner may read.
        write_whole(path, to_safetensors(tensors, metadata))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Latents":
        """Read a file that `save` wrote.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no safetensors file, or holds no latents.
        """
        path = Path(path)
        tensors, metadata = read_tensors(path, "latents", FORMAT)
        try:
            kind = LatentKind(metadata["kind"])
            moments = kind is LatentKind.MOMENTS
            sized = "image_height" in metadata
            return cls(
                values=tensors["mean" if moments else "latents"],
                logvar=tensors.get("logvar") if moments else None,
                kind=kind,
                scaled={"raw": False, "scaled": True}[metadata["scale"]],
                image_size=(int(metadata["image_height"]), int(metadata["image_width"])) if sized else None,
                **{name: metadata.get(name, "") for name in ORIGIN},
            )
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path} is not a whole file of latents: {error}") from error
