# SPDX-License-Identifier: Apache-2.0
"""The tensors that the device gave -> what a job asked for: plain functions for the thread pool."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentwire_codec.lat.payload import Provenance, compress_latents
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.posterior import Posterior
from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_core.errors import NonFiniteError
from latentwire_core.kinds import LatentKind
from latentwire_core.quality import LOSSLESS
from latentwire_server.config import ServerConfig
from latentwire_server.engine.jobs import DecodeJob, EncodeJob, FileOutput, sides
from latentwire_server.errors import RequestTooLarge

# The fields around the tensors and files of an answer take less.
MESSAGE_OVERHEAD = 1024


@dataclass(frozen=True)
class EncodedLatents:
    """Latents (B,C,h,w) as the job asked for them, contiguous.

    Attributes:
        values: the latents; for moments, the mean.
        logvar: for moments, the log-variance, of the same shape; else None.
        units: the units of the channels, for each image; None unless the latents were fitted to the images.
    """

    values: Tensor
    logvar: Tensor | None
    units: tuple[tuple[float, ...], ...] | None = None


def finish_encode(job: EncodeJob, model: Autoencoder, outputs: Sequence[tuple[Tensor, ...]]) -> EncodedLatents:
    """Map each image's moments to the view of the posterior that the job asked for.

    Args:
        job: what was asked for.
        model: the one that encoded the images.
        outputs: for each image the tensors of `Computed`: its moments, or fitted latents and their units.

    Raises:
        NonFiniteError: a number is beyond the range of the dtype that was asked for; or, scaled, beyond float32.
    """
    first, *others = map(_joined, zip(*outputs, strict=True))
    if job.refinement:
        return EncodedLatents(first, None, tuple(tuple(row) for row in others[0].tolist()))
    means, logvars = first, others
    posterior = Posterior(means, logvars[0] if logvars else None)
    values = posterior.sample(job.seeds) if job.kind is LatentKind.SAMPLE else posterior.mode()
    if job.scaled:
        values = model.to_scaled(values, job.scale, job.shift)
        if not values.isfinite().all():
            scale = model.spec.scale if job.scale is None else job.scale
            shift = model.spec.shift if job.shift is None else job.shift
            raise NonFiniteError(
                f"latents of the scale {scale} and the shift {shift} are beyond float32; choose smaller ones"
            )
    logvar = posterior.logvar if job.kind is LatentKind.MOMENTS else None
    return EncodedLatents(_cast(values, job.dtype), None if logvar is None else _cast(logvar, job.dtype))


def compress(
    quality: str | float,
    latents: EncodedLatents,
    size: tuple[int, int],
    name: str,
    spec: AutoencoderSpec,
    config: ServerConfig,
) -> list[bytes]:
    """Map latents to a `.lat` payload for each image.

    Args:
        quality: as `compress_latents` takes it.
        latents: raw, float32 (B,C,h,w).
        size: (height, width) of the images before padding.
        name: the name by which the model is served.
        spec: what the model is.
        config: the limits.

    Raises:
        TensorError: the latents are more, or larger, than the format holds.
        RequestTooLarge: the payloads don't fit into one message.
    """
    origin = Provenance(name, spec.latent_space, spec.weights_digest, size)
    kept = latents.values.half() if quality == LOSSLESS else latents.values
    payloads = [
        compress_latents(one.numpy(), quality, units=units, provenance=origin)
        for one, units in zip(kept, latents.units or (spec.latent_units,) * len(kept), strict=True)
    ]
    check_answer(sum(map(len, payloads)), "a lower quality", config)
    return payloads


def finish_decode(
    job: DecodeJob, images: list[Tensor], files: list[bytes], config: ServerConfig
) -> list[bytes] | Tensor:
    """Map each latent's image to the answer: the files, or one tensor, cropped.

    Args:
        job: what was asked for.
        images: uint8 (1,H,W,3) or float (1,3,H,W).
        files: the images as files; empty where a tensor was asked for.
        config: the limits.

    Raises:
        RequestTooLarge: the files don't fit into one message.
    """
    if isinstance(job.output, FileOutput):
        check_answer(sum(map(len, files)), "JPEG, WebP or AVIF", config)
        return files
    height, width = image_size(job, images[0])
    batch = _joined(images)
    if job.output == torch.uint8:
        return batch[:, :height, :width].contiguous()
    return _cast(batch[:, :, :height, :width], job.output)


def image_size(job: DecodeJob, image: Tensor) -> tuple[int, int]:
    """Return height and width of the answer's images; `image` is one before cropping."""
    return sides(image) if job.image_size is None else job.image_size


def check_answer(num_bytes: int, smaller: str, config: ServerConfig) -> None:
    """Refuse an answer that does not fit into one message.

    Args:
        num_bytes: what its tensors or files take.
        smaller: what to ask for instead.
        config: the limits.

    Raises:
        RequestTooLarge: the answer is over the limit.
    """
    if num_bytes + MESSAGE_OVERHEAD > config.max_message_bytes:
        raise RequestTooLarge(
            f"the answer would take {num_bytes} bytes; a message holds {config.max_message_bytes} "
            f"(serve --max-message-mib); ask for fewer images or for {smaller}"
        )


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors))


def _cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    cast = values.to(dtype).contiguous()
    if not cast.isfinite().all():
        raise NonFiniteError(
            f"the answer's largest magnitude is {values.abs().max().item():.4g}, beyond {dtype}; ask for float32"
        )
    return cast
