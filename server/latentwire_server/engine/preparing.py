# SPDX-License-Identifier: Apache-2.0
"""A job -> the tensors for the device: plain functions for the thread pool.

Limits are checked before memory is taken.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire_codec.images import geometry
from latentwire_codec.images.files import OpenedImage, open_image
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


@dataclass(frozen=True)
class MissingMemory:
    """How much memory the images of a job's files take, in MiB, where that is not free now."""

    mib: int


def prepare_encode(
    job: EncodeJob, spec: AutoencoderSpec, config: ServerConfig, take_memory: Callable[[int], bool]
) -> Images | MissingMemory:
    """Map a job to its images.

    Args:
        job: what is asked for.
        spec: what the model is.
        config: the limits.
        take_memory: takes so many MiB before the pixels of files are decoded; returns False where they are not free.

    Raises:
        ImageError, TensorError, NonFiniteError, RequestTooLarge, InvalidRequest: as their names say.
    """
    if job.refinement > config.max_refinement:
        raise InvalidRequest(
            "refinement",
            f"refinement is {job.refinement} iterations; at most {config.max_refinement} are accepted "
            "(serve --max-refinement)",
        )
    check_batch(job.images, config)
    if isinstance(job.image, Tensor):
        images: Images | MissingMemory = _check_raw(job.image, spec, config)
    else:
        images = _read_files(job, spec, config, take_memory)
    if isinstance(images, MissingMemory):
        return images
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


def _read_files(
    job: EncodeJob, spec: AutoencoderSpec, config: ServerConfig, take_memory: Callable[[int], bool]
) -> Images | MissingMemory:
    """Map a job's image files to their pixels, framed to the target size where there is one, and padded.

    The memory for all of them is taken when the first header is read.
    """
    assert not isinstance(job.image, Tensor)  # `prepare_encode` reads only files
    files = (job.image,) if isinstance(job.image, bytes) else job.image
    target_size = _target_size(job, spec)
    first = open_image(files[0], config.image_limits)
    width, height = first.size
    if target_size is not None:
        height, width = target_size
        config.image_limits.check(width, height)
    _check_pixels(len(files), height, width, config)
    needed_mib = math.ceil(len(files) * height * width * 3 / MIB)
    if not take_memory(needed_mib):
        return MissingMemory(needed_mib)
    pictures = [_framed(first, target_size)]
    del first  # its pixels would stay in memory beside the picture's
    for index, file in enumerate(files[1:], 1):
        picture = _framed(open_image(file, config.image_limits), target_size)
        pictures.append(picture)
        height, width = picture.shape[:2]
        _check_pixels(len(files), height, width, config)
        if picture.shape != pictures[0].shape:
            shape = pictures[0].shape
            raise InvalidRequest(
                "image_file",
                f"file {index} is {width}x{height}, file 0 {shape[1]}x{shape[0]}; the files of one request are of one "
                "size: give a height and width to frame them to, or send them one by one",
            )
    f, (height, width) = spec.downsample_factor, pictures[0].shape[:2]
    padded = np.stack([geometry.pad_to_multiple(picture, f) for picture in pictures])
    return Images(torch.from_numpy(padded), (height, width))


def _framed(image: OpenedImage, target_size: tuple[int, int] | None) -> geometry.Pixels:
    pixels = image.read()
    return pixels if target_size is None else geometry.resize_to_cover(pixels, target_size[1], target_size[0])


def _target_size(job: EncodeJob, spec: AutoencoderSpec) -> tuple[int, int] | None:
    """Return the size (height, width) that files are framed to: the model's fixed size, or the one asked for."""
    wanted, fixed = job.target_size, spec.fixed_size
    if wanted is None or fixed is None or wanted == fixed:
        return fixed or wanted
    raise InvalidRequest(
        "target_size",
        f"target_size is {wanted[1]}x{wanted[0]}; this model takes {fixed[1]}x{fixed[0]} only, leave it out",
    )


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
