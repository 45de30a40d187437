# SPDX-License-Identifier: Apache-2.0
"""What happens around the model: images and latents of a job -> tensors for the device; its tensors -> answers.

All of it is plain functions for the thread pool. Limits are checked before memory is taken.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from latentwire_codec import geometry
from latentwire_codec.autoencoder import Autoencoder, AutoencoderSpec
from latentwire_codec.errors import NonFiniteError, TensorTooLarge
from latentwire_codec.images import read_image, write_image
from latentwire_codec.posterior import Posterior
from latentwire_server.config import ServerConfig
from latentwire_server.errors import InvalidRequest, RequestTooLarge
from latentwire_server.jobs import DecodeJob, EncodeJob, FileOutput, LatentKind

# Float images may overshoot [-1, 1] a little; beyond this they are of another range, such as 0..255.
MAX_MAGNITUDE = 2.0
# What the fields around the tensors and files of an answer take, generously.
MESSAGE_OVERHEAD = 1024


@dataclass(frozen=True)
class EncodedLatents:
    """Latents (B,C,h,w) as the job asked for them, contiguous."""

    values: Tensor
    logvar: Tensor | None


def prepare_encode(job: EncodeJob, spec: AutoencoderSpec, config: ServerConfig) -> tuple[Tensor, tuple[int, int]]:
    """Map a job to its images for the device and their size (height, width) before padding.

    Returns:
        uint8 (B,H,W,3) or float (B,3,H,W), H and W as the model takes them; and the size.

    Raises:
        ImageError, TensorError, NonFiniteError, RequestTooLarge, InvalidRequest: as their names say.
    """
    f = spec.downsample_factor
    images = 1 if isinstance(job.image, bytes) else len(job.image)
    if job.kind is LatentKind.SAMPLE and len(job.seeds) != images:
        raise InvalidRequest("latents.seeds", f"{len(job.seeds)} seeds for {images} images; give one for each")
    if isinstance(job.image, bytes):
        target_size = _target_size(job, spec)
        pixels = read_image(job.image, config.image_limits)
        if target_size is not None:
            height, width = target_size
            config.image_limits.check(width, height)
            pixels = geometry.resize_to_cover(pixels, width, height)
        size = pixels.shape[:2]
        batch = torch.from_numpy(geometry.pad_to_multiple(pixels, f)).unsqueeze(0)
    else:
        if job.target_size is not None:
            raise InvalidRequest("target_size", "raw images are taken as they are; resize an image file")
        batch = job.image
        size = sides(batch)
        config.image_limits.check(size[1], size[0])
        _check_batch(len(batch), config)
        spec.check_images(*size)
        _check_finite(batch, "image tensor")
        if batch.is_floating_point() and (largest := batch.abs().max().item()) > MAX_MAGNITUDE:
            raise InvalidRequest(
                "image_tensor",
                f"image tensor's largest magnitude is {largest:.4g}; floats are in [-1, 1], uint8 in 0..255",
            )
    height, width = sides(batch)
    numbers = len(batch) * spec.latent_channels * (height // f) * (width // f)
    tensors = 2 if job.kind is LatentKind.MOMENTS else 1
    _check_answer(tensors * numbers * job.dtype.itemsize, "float16", config)
    return batch, (int(size[0]), int(size[1]))


def finish_encode(job: EncodeJob, model: Autoencoder, moments: list[tuple[Tensor, ...]]) -> EncodedLatents:
    """Map each image's moments to the view of the posterior that the job asked for.

    Raises:
        NonFiniteError: a number is beyond the range of the dtype that was asked for.
    """
    means, *logvars = (torch.cat(parts) for parts in zip(*moments, strict=True))
    posterior = Posterior(means, logvars[0] if logvars else None)
    values = posterior.sample(job.seeds) if job.kind is LatentKind.SAMPLE else posterior.mode()
    if job.scaled:
        values = model.to_scaled(values)
    logvar = posterior.logvar if job.kind is LatentKind.MOMENTS else None
    return EncodedLatents(_cast(values, job.dtype), None if logvar is None else _cast(logvar, job.dtype))


def prepare_decode(job: DecodeJob, model: Autoencoder, config: ServerConfig) -> Tensor:
    """Map a job to its raw latents for the device, float32 (B,C,h,w).

    Raises:
        TensorError, NonFiniteError, RequestTooLarge, InvalidRequest: as their names say.
    """
    spec = model.spec
    latents = job.latents.float()
    spec.check_latents(latents.shape)
    _check_batch(len(latents), config)
    height, width = (side * spec.downsample_factor for side in latents.shape[2:])
    config.image_limits.check(width, height)
    if job.image_size is not None:
        # An image is padded by less than f pixels, and for a model of one size not at all.
        padding = 0 if spec.fixed_size is not None else spec.downsample_factor - 1
        for side, padded, name in zip(job.image_size, (height, width), ("height", "width"), strict=True):
            if not padded - padding <= side <= padded:
                held = f"{padded - padding} to {padded}" if padding else str(padded)
                raise InvalidRequest(
                    f"latents.image_size.{name}", f"{name} is {side}; latents of this shape hold {held} pixels"
                )
        height, width = job.image_size
    if isinstance(job.output, torch.dtype):
        _check_answer(len(latents) * 3 * height * width * job.output.itemsize, "uint8", config)
    _check_finite(latents, "latents")
    return model.to_raw(latents) if job.scaled else latents


def device_output(output: FileOutput | torch.dtype) -> torch.dtype:
    """Return what the device should give: uint8 (for files too) or float32."""
    return torch.uint8 if isinstance(output, FileOutput) or output == torch.uint8 else torch.float32


def finish_decode(job: DecodeJob, images: list[Tensor], config: ServerConfig) -> list[bytes] | Tensor:
    """Map each latent's image, uint8 (1,H,W,3) or float (1,3,H,W), to files or one tensor, cropped.

    Raises:
        ImageError: the image cannot be written in that format.
        RequestTooLarge: the files don't fit into one message.
    """
    height, width = sides(images[0]) if job.image_size is None else job.image_size
    if isinstance(job.output, FileOutput):
        files = [
            write_image(
                geometry.crop(image[0].numpy(), height, width),
                job.output.image_format,
                job.output.quality,
            )
            for image in images
        ]
        _check_answer(sum(map(len, files)), "JPEG, WebP or AVIF", config)
        return files
    batch = torch.cat(images)
    if job.output == torch.uint8:
        return batch[:, :height, :width].contiguous()
    return _cast(batch[:, :, :height, :width], job.output)


def sides(batch: Tensor) -> tuple[int, int]:
    """Return height and width of uint8 (B,H,W,3) or float (B,3,H,W)."""
    height, width = batch.shape[1:3] if batch.dtype == torch.uint8 else batch.shape[2:4]
    return height, width


def _target_size(job: EncodeJob, spec: AutoencoderSpec) -> tuple[int, int] | None:
    """Return the size (height, width) that a file is framed to: the model's only one, or the one asked for."""
    wanted, fixed = job.target_size, spec.fixed_size
    if wanted is None or fixed is None or wanted == fixed:
        return fixed or wanted
    raise InvalidRequest(
        "target_size",
        f"target_size is {wanted[1]}x{wanted[0]}; this model takes {fixed[1]}x{fixed[0]} only, leave it out",
    )


def _cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    cast = values.to(dtype).contiguous()
    if not cast.isfinite().all():
        raise NonFiniteError(
            f"the answer's largest magnitude is {values.abs().max().item():.4g}, beyond {dtype}; ask for float32"
        )
    return cast


def _check_finite(tensor: Tensor, what: str) -> None:
    if tensor.is_floating_point() and not (finite := tensor.isfinite()).all():
        bad = tensor.numel() - int(finite.sum())
        raise NonFiniteError(
            f"{bad} of the {tensor.numel()} numbers of the {what} are NaN or infinite; "
            "check how it was made, and that its bytes are contiguous and of the announced dtype"
        )


def _check_batch(images: int, config: ServerConfig) -> None:
    if images > config.max_batch:
        raise TensorTooLarge(
            f"the request has {images} images; at most {config.max_batch} are accepted (serve --max-batch)"
        )


def _check_answer(num_bytes: int, smaller: str, config: ServerConfig) -> None:
    if num_bytes + MESSAGE_OVERHEAD > config.max_message_bytes:
        raise RequestTooLarge(
            f"the answer would take {num_bytes} bytes; a message holds {config.max_message_bytes} "
            f"(serve --max-message-mib); ask for fewer images or for {smaller}"
        )
