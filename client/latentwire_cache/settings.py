# SPDX-License-Identifier: Apache-2.0
"""What a cache is made with: the VAE, the rule of sizes, what is kept -> digests, and differences in words."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from latentwire_core.scaling import spread

Keep = Literal["moments", "mode"]
Dtype = Literal["float32", "float16"]

VERSION = 1
"""The version of the master's layout; another version gives other digests."""


class CacheError(Exception):
    """A cache cannot be planned, filled or read; the message says why, and the remedy."""


@dataclass(frozen=True)
class Model:
    """The VAE that makes the latents, as far as it decides their numbers.

    Attributes:
        latent_space: the name of the space; empty: unnamed.
        weights_digest: SHA-256 of the weights, 64 hex digits.
        scale: 1 or C numbers: scaled = (raw - shift) * scale.
        shift: 1 or C numbers.
        latent_channels: C.
        downsample_factor: pixels along a side for one latent.
        has_logvar: whether the VAE gives a log-variance.
        dtype: the dtype in which the VAE computes.
        fixed_size: (height, width) of all images; None: any size.
    """

    latent_space: str
    weights_digest: str
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    latent_channels: int
    downsample_factor: int
    has_logvar: bool
    dtype: str
    fixed_size: tuple[int, int] | None = None

    @classmethod
    def of(cls, spec: Any) -> Self:
        """Take the values from anything with attributes of these names: what a server says, or a local VAE's spec."""
        values = {each.name: getattr(spec, each.name) for each in fields(cls)}
        values |= {name: tuple(map(float, values[name])) for name in ("scale", "shift")}
        return cls(**values)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Map the JSON object that `asdict` gives to the model."""
        fixed = value["fixed_size"]
        tuples = {"scale": tuple(value["scale"]), "shift": tuple(value["shift"])}
        return cls(**{**value, **tuples, "fixed_size": None if fixed is None else tuple(fixed)})

    @property
    def factors(self) -> tuple[list[float], list[float]]:
        """Scale and shift, C numbers each."""
        return spread(self.scale, self.latent_channels), spread(self.shift, self.latent_channels)

    def latent_shape(self, bucket: tuple[int, int]) -> tuple[int, int, int]:
        """Map the size of a bucket, (width, height), to the shape (C,h,w) of its latents."""
        if self.fixed_size is not None:
            height, width = self.fixed_size
        else:
            width, height = bucket
        return self.latent_channels, height // self.downsample_factor, width // self.downsample_factor


@dataclass(frozen=True)
class Settings:
    """What decides the contents of a cache, beside the images.

    Attributes:
        model: the VAE.
        format: the files that `run` writes beside the master: a name of `FORMATS`; `master`: no other files.
        rule: the name of the rule of sizes; see `buckets`.
        rule_options: the options of the rule; JSON values.
        keep: what the master holds: `moments` (mean and log-variance) or `mode` (the mean alone).
        dtype: the dtype of the master's arrays.
        flip: whether the horizontally flipped image is encoded as well.
        alpha_mask: whether the image's alpha is kept beside the latents.
        seed: the seed of samples, 0..2^64-1.
        shard_items: the images of a shard; None: as many as fill 64 MiB, at most 256.
    """

    model: Model
    format: str = "master"
    rule: str = "exact"
    rule_options: Mapping[str, Any] = field(default_factory=dict)
    keep: Keep = "moments"
    dtype: Dtype = "float32"
    flip: bool = False
    alpha_mask: bool = False
    seed: int = 0
    shard_items: int | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Map the JSON object that `asdict` gives to the settings."""
        return cls(**{**value, "model": Model.from_json(value["model"])})

    @property
    def latents_digest(self) -> str:
        """SHA-256 over what decides the numbers of the master, beside the images and their frames."""
        parts = {name: getattr(self, name) for name in ("keep", "dtype", "flip", "alpha_mask")}
        return digest({"version": VERSION, "model": asdict(self.model), **parts})


def canonical(value: object) -> bytes:
    """Map a JSON value to its bytes: the same for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(value: object) -> str:
    """Map a JSON value to the SHA-256 of its canonical bytes, 64 hex digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def differences(there: Settings | Model, asked: Settings | Model) -> list[str]:
    """Name each setting that differs, with both values."""
    return list(_differences(json.loads(canonical(asdict(there))), json.loads(canonical(asdict(asked))), ""))


def _differences(there: Mapping[str, Any], asked: Mapping[str, Any], prefix: str) -> Iterable[str]:
    for name in sorted(there.keys() | asked.keys()):
        old, new = there.get(name), asked.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{name} ".replace("_", " "))
        elif old != new:
            yield f"{prefix}{name.replace('_', ' ')} is {_shown(old)} there and {_shown(new)} now"


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}..." if len(text) == 64 else text or "unnamed"
