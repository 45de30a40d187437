# SPDX-License-Identifier: Apache-2.0
"""A job -> the tensors for the device: plain functions for the thread pool.

Limits are checked before memory is taken.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire_codec.images import geometry
from latentwire_codec.images.geometry import Pixels
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_core.errors import NonFiniteError, TensorTooLarge
from latentwire_core.kinds import LatentKind
from latentwire_server.config import MIB, ServerConfig
from latentwire_server.engine.finishing import check_answer
from latentwire_server.engine.jobs import DecodeJob, EncodeJob, FileOutput, sides
from latentwire_server.errors import InvalidRequest, RequestTooLarge

# Float images may overshoot [-1, 1] a little; larger magnitudes belong to another range, such as 0..255.
MAX_MAGNITUDE = 2.0


@dataclass(frozen=True)
class Images:
    """The images of an encode job, ready for the device.

    Attributes:
        batch: uint8 (B,H,W,3) or float (B,3,H,W), H and W as the model takes them.
        size: (height, width) of each image before padding.
    """

    batch: Tensor
    size: tuple[int, int]


def check_encode(job: EncodeJob, config: ServerConfig) -> None:
    """Refuse a job that is over a limit, before its images are looked at.

    Raises:
        TensorTooLarge, InvalidRequest: as their names say.
    """
    if job.refinement > config.max_refinement:
        raise InvalidRequest(
            "refinement",
            f"refinement is {job.refinement} iterations; at most {config.max_refinement} are accepted "
            "(serve --max-refinement)",
        )
    check_batch(job.images, config)


def target_size(job: EncodeJob, spec: AutoencoderSpec) -> tuple[int, int] | None:
    """Return the size (height, width) that files are framed to: the model's fixed size, or the one asked for."""
    wanted, fixed = job.target_size, spec.fixed_size
    if wanted is None or fixed is None or wanted == fixed:
        return fixed or wanted
    raise InvalidRequest(
        "target_size",
        f"target_size is {wanted[1]}x{wanted[0]}; this model takes {fixed[1]}x{fixed[0]} only, leave it out",
    )


def memory_of_files(
    job: EncodeJob, header: tuple[int, int], target: tuple[int, int] | None, config: ServerConfig
) -> int:
    """Return how many MiB the pixels of a job's files take.

    Args:
        job: the job; its files are of one size.
        header: (height, width) that the header of the first file announces.
        target: (height, width) that each file is framed to; None: its own.
        config: the limits.

    Raises:
        ImageTooLarge, RequestTooLarge: as their names say.
    """
    height, width = target or header
    if target is not None:
        config.image_limits.check(width, height)
    _check_pixels(job.images, height, width, config)
    return math.ceil(job.images * height * width * 3 / MIB)


def check_picture(pictures: Sequence[Pixels], files: int, config: ServerConfig) -> None:
    """Refuse the last of some pictures, uint8 (H,W,3), where the pictures of all `files` are too large or differ.

    Raises:
        RequestTooLarge, InvalidRequest: as their names say.
    """
    (height, width), first = pictures[-1].shape[:2], pictures[0].shape
    _check_pixels(files, height, width, config)
    if pictures[-1].shape != first:
        raise InvalidRequest(
            "image_file",
            f"file {len(pictures) - 1} is {width}x{height}, file 0 {first[1]}x{first[0]}; the files of one request "
            "are of one size: give a height and width to frame them to, or send them one by one",
        )


def prepare_encode(job: EncodeJob, pictures: Sequence[Pixels], spec: AutoencoderSpec, config: ServerConfig) -> Images:
    """Map a job to its images.

    Args:
        job: what is asked for.
        pictures: the pixels of the job's files, uint8 (H,W,3); empty where its images are raw.
        spec: what the model is.
        config: the limits.

    Raises:
        TensorError, NonFiniteError, RequestTooLarge, InvalidRequest: as their names say.
    """
    if isinstance(job.image, Tensor):
        images = _check_raw(job.image, spec, config)
    else:
        images = _padded(pictures, spec.downsample_factor)
    height, width = (side // spec.downsample_factor for side in sides(images.batch))
    numbers = job.images * spec.latent_channels * height * width
    tensors = 2 if job.kind is LatentKind.MOMENTS else 1
    if job.lat_quality is None:
        check_answer(tensors * numbers * job.dtype.itemsize, "float16", config)
    return images


def prepare_decode(job: DecodeJob, model: Autoencoder, config: ServerConfig) -> Tensor:
    """Map a job to its raw latents, float32 (B,C,h,w).

    Raises:
        LatentSpaceMismatch, TensorError, NonFiniteError, RequestTooLarge, InvalidRequest: as their names say.
    """
    model.check_latent_space(job)
    height, width = check_latents(tuple(job.latents.shape), job.image_size, model.spec, config)
    latents = job.latents.float()
    if isinstance(job.output, torch.dtype):
        check_answer(len(latents) * 3 * height * width * job.output.itemsize, "uint8", config)
    _check_finite(latents, "latents")
    return model.to_raw(latents, job.scale, job.shift) if job.scaled else latents


def device_output(output: FileOutput | torch.dtype) -> torch.dtype:
    """Return what the device is to give for an output: uint8 (for files too) or float32."""
    return torch.uint8 if isinstance(output, FileOutput) or output == torch.uint8 else torch.float32


def check_batch(images: int, config: ServerConfig) -> None:
    """Refuse more images than one request may have.

    Raises:
        TensorTooLarge: the request has more than `config.max_batch`.
    """
    if images > config.max_batch:
        raise TensorTooLarge(
            f"the request has {images} images; at most {config.max_batch} are accepted (serve --max-batch)"
        )


def check_latents(
    shape: tuple[int, ...], image_size: tuple[int, int] | None, spec: AutoencoderSpec, config: ServerConfig
) -> tuple[int, int]:
    """Check the shape of latents (B,C,h,w) before they take memory.

    Returns:
        height and width of their images, cropped where a size is given.

    Raises:
        TensorError, TensorTooLarge, ImageTooLarge, RequestTooLarge: the shape does not fit, or is over a limit.
        InvalidRequest: the images do not have the size that is to be cropped.
    """
    spec.check_latents(shape)
    check_batch(shape[0], config)
    height, width = (side * spec.downsample_factor for side in shape[2:])
    config.image_limits.check(width, height)
    _check_pixels(shape[0], height, width, config)
    if image_size is None:
        return height, width
    # Padding adds less than f pixels, and nothing for a model with a fixed size.
    padding = 0 if spec.fixed_size is not None else spec.downsample_factor - 1
    for side, padded, name in zip(image_size, (height, width), ("height", "width"), strict=True):
        if not padded - padding <= side <= padded:
            held = f"{padded - padding} to {padded}" if padding else str(padded)
            raise InvalidRequest(f"image_size.{name}", f"{name} is {side}; latents of this shape hold {held} pixels")
    return image_size


def _check_raw(batch: Tensor, spec: AutoencoderSpec, config: ServerConfig) -> Images:
    """Check raw images, uint8 (B,H,W,3) or float (B,3,H,W)."""
    height, width = sides(batch)
    config.image_limits.check(width, height)
    spec.check_images(height, width)
    _check_finite(batch, "image tensor")
    if batch.is_floating_point() and (largest := batch.abs().max().item()) > MAX_MAGNITUDE:
        raise InvalidRequest(
            "image_tensor", f"image tensor's largest magnitude is {largest:.4g}; floats are in [-1, 1], uint8 in 0..255"
        )
    return Images(batch, (height, width))


def _padded(pictures: Sequence[Pixels], multiple: int) -> Images:
    height, width = pictures[0].shape[:2]
    padded = np.stack([geometry.pad_to_multiple(picture, multiple) for picture in pictures])
    return Images(torch.from_numpy(padded), (height, width))


def _check_pixels(images: int, height: int, width: int, config: ServerConfig) -> None:
    """Refuse more pixels than raw images in one message have: small files can be large images."""
    pixels, allowed = images * height * width, config.image_limits.max_pixels
    if pixels > allowed:
        raise RequestTooLarge(
            f"{images} images of {width}x{height} have {pixels} pixels; one request may have {allowed} "
            "(serve --max-message-mib); send fewer at once"
        )


def _check_finite(tensor: Tensor, what: str) -> None:
    if tensor.is_floating_point() and not (finite := tensor.isfinite()).all():
        bad = tensor.numel() - int(finite.sum())
        raise NonFiniteError(
            f"{bad} of the {tensor.numel()} numbers of the {what} are NaN or infinite; "
            "check how it was made, and that its bytes are contiguous and of the announced dtype"
        )
