# SPDX-License-Identifier: Apache-2.0
"""Requested, declared and detected facts about a VAE -> the scale and shift of its latents, and their space.

The first source that states the factors decides, in this order: the caller; a configuration; the weights themselves;
the family, as the caller names it, as the rest of a full checkpoint or the shapes show it, or as a registry of digests
knows it. Where no source states them, loading fails. Nothing is guessed: SD 1.x and SDXL VAEs have the same shapes, and
the wrong factor silently washes images out.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from latentwire_codec.checkpoints.families import BY_NAME, Family
from latentwire_core.errors import CheckpointError
from latentwire_core.scaling import Scaling, from_config, spread

log = logging.getLogger("latentwire")

Numbers = float | Sequence[float]
# Keys that are only valid in pairs: the first requires the second.
PAIRS = (("shift_factor", "scaling_factor"), ("latents_mean", "latents_std"), ("latents_std", "latents_mean"))


@dataclass(frozen=True)
class Requested:
    """The caller's choices; None: the caller leaves the choice. The arguments of `load_checkpoint` explain each."""

    scale: Numbers | None = None
    shift: Numbers | None = None
    latent_space: str | None = None


@dataclass(frozen=True)
class Detected:
    """The facts that a VAE's files show.

    Attributes:
        where: its name in messages.
        config: the configuration of its class, complete.
        declared: the part of the configuration that a file states.
        tensors: its tensors, by name.
        candidates: the families with such a network.
        family: the family that a full checkpoint or a registry shows; empty: no family.
        defaults: whether the class's own factors stand where no factors are declared, as diffusers reads its folders.
    """

    where: Path
    config: Mapping[str, Any]
    declared: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    candidates: Sequence[Family]
    family: str
    defaults: bool


def resolve(requested: Requested, detected: Detected) -> tuple[Scaling, str]:
    """Return scale and shift, and the name of the latent space (empty: unnamed).

    Raises:
        CheckpointError: nothing states which factors are right, or they cannot be used.
    """
    for given, needed in PAIRS:
        if detected.declared.get(given) is not None and detected.declared.get(needed) is None:
            raise CheckpointError(f"{detected.where}: its configuration tells {given}, but no {needed}; give both")
    family = _family(requested, detected)
    found = _found(detected, family)
    scaling = found if requested.scale is None and requested.shift is None else _completed(requested, detected, found)
    if scaling is None:
        raise CheckpointError(_refusal(detected))
    check(scaling)
    if requested.latent_space is not None:
        if family is not None and family.name == requested.latent_space and family.scaling not in (None, scaling):
            log.warning(
                "%s: its latents are named %s, but scaled as none of that family's are: by %s after a shift by %s; %s",
                detected.where, family.name, _text(scaling.scale), _text(scaling.shift), _listed([family]),
            )  # fmt: skip
        return scaling, requested.latent_space
    named = str(detected.declared.get("latent_space", ""))
    return scaling, named or _space(detected.candidates, family, scaling)


def declared_by(config: Mapping[str, Any]) -> Scaling | None:
    """Map a diffusers configuration to its factors, see `scaling.from_config`; None where it has no factors.

    Raises:
        CheckpointError: they are no numbers, or cannot be undone.
    """
    try:
        if config.get("scaling_factor", 1.0) is None:
            raise TypeError("scaling_factor is null")
        scaling = from_config(config)
        return None if scaling is None else check(scaling)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"the scaling in the configuration is not of finite numbers: {error!r}") from error


def declared_by_batch_norm(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Scaling | None:
    """Map FLUX.2's batch norm to factors of the VAE's own C channels; None: there is no batch norm.

    It holds the statistics of 4C channels, one for each place in a patch of 2x2 (channel 4c + place); those of a
    channel are pooled over its four places. The FLUX.2 pipelines fold the patches and normalise themselves, from raw
    latents; pooled factors differ from theirs as the four places do.
    """
    if "bn.running_mean" not in tensors:
        return None
    places = (int(config["latent_channels"]), -1)
    mean, var = (tensors[f"bn.running_{name}"].double().unflatten(0, places) for name in ("mean", "var"))
    pooled = mean.mean(1)
    variance = (var + mean.square()).mean(1) - pooled.square() + float(config.get("batch_norm_eps", 0.0))
    return check(Scaling(tuple(variance.rsqrt().tolist()), tuple(pooled.tolist())))


def in_config(scaling: Scaling, config: Mapping[str, Any]) -> dict[str, Any]:
    """Write factors into a configuration, so that a pipeline that reads it does the same.

    Keys that the class does not have are not added: FLUX.2 keeps its factors in its weights.
    """
    if declared_by(config) == scaling:
        return dict(config)
    changes: dict[str, Any]
    if len(scaling.scale) == len(scaling.shift) == 1 and "scaling_factor" in config:
        # None where nothing is shifted, except where the class has a number: some pipelines add it without a check.
        shift = scaling.shift[0] or (None if config.get("shift_factor") is None else 0.0)
        changes = {"scaling_factor": scaling.scale[0], "shift_factor": shift, "latents_mean": None, "latents_std": None}
    else:
        channels = max(len(scaling.scale), len(scaling.shift), len(config.get("latents_mean") or ()))
        mean, std = spread(scaling.shift, channels), [1 / number for number in spread(scaling.scale, channels)]
        changes = {"scaling_factor": 1.0, "shift_factor": None, "latents_mean": mean, "latents_std": std}
    return {**config, **{key: value for key, value in changes.items() if key in config}}


def check(scaling: Scaling) -> Scaling:
    """Return factors if they can be undone; else raise CheckpointError."""
    if not all(map(math.isfinite, (*scaling.scale, *scaling.shift))) or 0.0 in scaling.scale:
        raise CheckpointError(f"scaling by {scaling.scale} after a shift by {scaling.shift} cannot be undone")
    return scaling


def _family(requested: Requested, detected: Detected) -> Family | None:
    """Return the family that is named or shown, unless its network is another one."""
    for name in (requested.latent_space, detected.declared.get("latent_space"), detected.family):
        family = BY_NAME.get(str(name))
        if family is not None and (family in detected.candidates or not detected.candidates):
            return family
    return detected.candidates[0] if len(detected.candidates) == 1 else None


def _found(detected: Detected, family: Family | None) -> Scaling | None:
    """Return the factors that stand without the caller's own."""
    declared = declared_by(detected.config) if declared_by(detected.declared) is not None else None
    declared = declared or declared_by_batch_norm(detected.tensors, detected.config)
    if declared is not None:
        return declared
    if family is not None and family.scaling is not None:
        return family.scaling
    shared = {candidate.scaling for candidate in detected.candidates}
    if len(shared) == 1:
        return shared.pop()
    return declared_by(detected.config) if detected.defaults else None


def _completed(requested: Requested, detected: Detected, found: Scaling | None) -> Scaling:
    """Complete the caller's scale or shift: from the factors found, or from the family with that scale."""
    if requested.scale is None:
        if found is None:
            raise CheckpointError(f"{detected.where}: a shift is given, but no scale; give scale too")
        return Scaling(found.scale, _numbers(requested.shift, "shift"))
    scale = _numbers(requested.scale, "scale")
    if requested.shift is not None:
        return Scaling(scale, _numbers(requested.shift, "shift"))
    if found is not None and (declared_by(detected.declared) is not None or len(detected.candidates) == 1):
        return Scaling(scale, found.shift)
    known = [family.scaling for family in detected.candidates if family.scaling is not None]
    shifts = {scaling.shift for scaling in known if _close(scaling.scale, scale)}
    if len(shifts) == 1:
        return Scaling(scale, shifts.pop())
    if any(len(scaling.shift) == 1 and scaling.shift != (0.0,) for scaling in known):
        raise CheckpointError(
            f"{detected.where}: scale is {scale[0]:g}, which is none of {_listed(detected.candidates)}, and their "
            "latents are shifted; give shift too"
        )
    return Scaling(scale)


def _space(candidates: Sequence[Family], family: Family | None, scaling: Scaling) -> str:
    """Name the space of a known network by its factors."""
    if family is not None and (family.scaling is None or _same(family.scaling, scaling)):
        return family.name
    names = [one.name for one in candidates if one.scaling is not None and _same(one.scaling, scaling)]
    return names[0] if len(names) == 1 else ""


def _refusal(detected: Detected) -> str:
    if known := _listed(detected.candidates):
        why = f"its tensors fit {known}, and nothing tells which"
        remedy = "latent_space (a family's name) or scale, for a server as --latent-space or --scale"
    else:
        why = f"no family that is known has such a network ({', '.join(BY_NAME)})"
        remedy = "scale (and shift), for a server as --scale and --shift"
    return (
        f"{detected.where}: its scaling is not known: {why}; give {remedy}, or put "
        f'{detected.where.with_suffix(".json").name} beside it, such as {{"scaling_factor": 0.18215}}'
    )


def _listed(families: Sequence[Family]) -> str:
    return " or ".join(
        f"{family.name} (scale {_text(family.scaling.scale)}, shift {_text(family.scaling.shift)})"
        for family in families
        if family.scaling is not None
    )


def _text(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:g}" for number in numbers)


def _numbers(value: Numbers | None, name: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, value)) if isinstance(value, Sequence) else (float(value),)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{name} is {value!r}; give a number, or one for each channel") from error


def _same(one: Scaling, other: Scaling) -> bool:
    return _close(one.scale, other.scale) and _close(one.shift, other.shift)


def _close(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return len(one) == len(other) and all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(one, other, strict=True))
