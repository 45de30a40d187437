# SPDX-License-Identifier: Apache-2.0
"""A served model and what a pipeline expects of its latents -> agreement, a warning, or a refusal."""

import warnings
from collections.abc import Iterator
from typing import Any

import grpc
import torch

from latentwire_client.errors import LatentSpaceMismatch
from latentwire_client.info import ModelInfo
from latentwire_core import identity
from latentwire_core.scaling import from_config, same_numbers

# No published pipeline works in a space whose name begins so.
OWN_SPACES = "latentwire-"


def check_space(info: ModelInfo, latent_space: str | None, like: Any) -> None:
    """Refuse a model whose latents are not those that a pipeline was trained on.

    Names decide. With `like`, the channels and the size of the latents, scale and shift are compared, too, and where
    neither space has a name, the SHA-256 of the weights.

    Args:
        info: the served model.
        latent_space: the space that the caller expects, such as `sd1`; None or empty: unknown.
        like: the diffusers VAE that is to be replaced; None: unknown.

    Raises:
        LatentSpaceMismatch: the model's space differs, or it is one of latentwire's own and nobody asked for it.
        ValueError: `latent_space` and `like` contradict each other.

    Warns:
        UserWarning: the model's space has no name, and the weights do not prove that it is the expected one.
    """
    named = "" if like is None else str(like.config.get("latent_space") or "")
    if latent_space and named and latent_space != named:
        raise ValueError(f"latent_space is {latent_space!r}, but the VAE given as like is of {named!r}; give one")
    expected = latent_space or named
    served = f"the model {info.name!r}"
    differences = [] if like is None else list(_differences(info, like))
    if differences:
        _refuse(f"{served} differs from the VAE that it shall replace: {'; '.join(differences)}")
    if expected and info.latent_space and expected != info.latent_space:
        _refuse(f"{served} is of the latent space {info.latent_space!r}, not {expected!r}; ask for another model")
    if not expected and info.latent_space.startswith(OWN_SPACES):
        _refuse(
            f"{served} is of the latent space {info.latent_space!r}, in which no published pipeline works; serve the "
            f"pipeline's own VAE (latentwire serve --model FOLDER), or, for a pipeline trained in this space, pass "
            f"latent_space={info.latent_space!r}"
        )
    if not info.latent_space and not (like is not None and _digest_of(like) == info.weights_digest):
        wanted = repr(expected) if expected else "the pipeline's"
        other = (
            "or pass like=pipe.vae to compare the model with the VAE that it replaces"
            if like is None
            else "for its weights are not, bit by bit, those of the VAE given as like"
        )
        warnings.warn(
            f"{served} has no named latent space: whether it is {wanted} cannot be checked; name it (latentwire serve "
            f"--latent-space), {other}",
            stacklevel=3,
        )


def weights_digest(module: torch.nn.Module) -> str:
    """Map a network to the SHA-256 of its tensors, 64 hex digits, as servers report it.

    See `identity.weights_digest`. The digest equals the server's only while the tensors have the dtype and the names of
    their file. It is empty where a tensor has no values (the meta device).
    """
    tensors = module.state_dict()
    if any(tensor.is_meta for tensor in tensors.values()):
        return ""
    return identity.weights_digest(tensors, _parts)


def _parts(tensor: torch.Tensor) -> tuple[str, tuple[int, ...], memoryview]:
    elements = tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), elements


def _digest_of(like: Any) -> str:
    info = getattr(like, "info", None)
    return info.weights_digest if isinstance(info, ModelInfo) else weights_digest(like)


def _differences(info: ModelInfo, like: Any) -> Iterator[str]:
    """Yield in words each contradiction between the VAE's configuration and the served model."""
    channels = like.config.get("latent_channels")
    if channels not in (None, info.latent_channels):
        yield f"its latents have {info.latent_channels} channels instead of {channels}"
    blocks = like.config.get("block_out_channels")
    if blocks is not None and 2 ** (len(blocks) - 1) != info.downsample_factor:
        yield f"its downsampling factor is {info.downsample_factor} instead of {2 ** (len(blocks) - 1)}"
    numbers = from_config(like.config)
    if numbers is not None:
        for name, wanted, found in zip(
            ("scale", "shift"), (numbers.scale, numbers.shift), (info.scale, info.shift), strict=True
        ):
            if not same_numbers(wanted, found):
                yield f"its {name} is {_shown(found)} instead of {_shown(wanted)}"


def _shown(numbers: Any) -> str:
    return ", ".join(f"{number:.6g}" for number in numbers)


def _refuse(message: str) -> None:
    raise LatentSpaceMismatch(grpc.StatusCode.FAILED_PRECONDITION, message)
