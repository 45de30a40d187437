# SPDX-License-Identifier: Apache-2.0
"""What happens around the model: images, latents, payloads of a job -> tensors for the device; its tensors -> answers.

All of it is plain functions for the thread pool. Limits are checked before memory is taken.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentwire_codec.images import geometry
from latentwire_codec.images.files import read_image, read_size, write_image
from latentwire_codec.lat.payload import Provenance, compress_latents, decompress_latents
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.posterior import Posterior
from latentwire_codec.runtime.spec import AutoencoderSpec
from latentwire_core.container import read_header
from latentwire_core.errors import NonFiniteError, TensorTooLarge
from latentwire_core.kinds import LatentKind
from latentwire_core.quality import LOSSLESS
from latentwire_server.config import ServerConfig
from latentwire_server.engine.jobs import DecodeJob, EncodeJob, FileOutput, PayloadJob
from latentwire_server.errors import InvalidRequest, RequestTooLarge

# Float images may overshoot [-1, 1] a little; beyond this they are of another range, such as 0..255.
MAX_MAGNITUDE = 2.0
# What the fields around the tensors and files of an answer take, generously.
MESSAGE_OVERHEAD = 1024


@dataclass(frozen=True)
class EncodedLatents:
    """Latents (B,C,h,w) as the job asked for them, contiguous; units of each image where they were fitted to it."""

    values: Tensor
    logvar: Tensor | None
    units: tuple[tuple[float, ...], ...] | None = None


def bytes_of_files(job: EncodeJob, spec: AutoencoderSpec, config: ServerConfig) -> int:
    """Map a job to the memory that its images take once they are read from their files; 0 for raw ones.

    Raises:
        ImageError, RequestTooLarge, InvalidRequest: as far as the first file's header tells.
    """
    if isinstance(job.image, Tensor):
        return 0
    files = (job.image,) if isinstance(job.image, bytes) else job.image
    check_batch(len(files), config)
    width, height = read_size(files[0], config.image_limits)
    if (target_size := _target_size(job, spec)) is not None:
        height, width = target_size
        config.image_limits.check(width, height)
    _check_pixels(len(files), height, width, config)
    return len(files) * height * width * 3


def prepare_encode(job: EncodeJob, spec: AutoencoderSpec, config: ServerConfig) -> tuple[Tensor, tuple[int, int]]:
    """Map a job to its images for the device and their size (height, width) before padding.

    Returns:
        uint8 (B,H,W,3) or float (B,3,H,W), H and W as the model takes them; and the size.

    Raises:
        ImageError, TensorError, NonFiniteError, RequestTooLarge, InvalidRequest: as their names say.
    """
    if job.refinement > config.max_refinement:
        raise InvalidRequest(
            "lat.refinement",
            f"refinement is {job.refinement} iterations; at most {config.max_refinement} are accepted "
            "(serve --max-refinement)",
        )
    f = spec.downsample_factor
    images = 1 if isinstance(job.image, bytes) else len(job.image)
    if job.kind is LatentKind.SAMPLE and len(job.seeds) != images:
        raise InvalidRequest("latents.seeds", f"{len(job.seeds)} seeds for {images} images; give one for each")
    if not isinstance(job.image, Tensor):
        pictures = _read_files(job, spec, config)
        size = pictures[0].shape[:2]
        batch = torch.from_numpy(np.stack([geometry.pad_to_multiple(picture, f) for picture in pictures]))
    else:
        if job.target_size is not None:
            raise InvalidRequest("target_size", "raw images are taken as they are; resize an image file")
        batch = job.image
        size = sides(batch)
        config.image_limits.check(size[1], size[0])
        check_batch(len(batch), config)
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
    if job.lat_quality is None:
        _check_answer(tensors * numbers * job.dtype.itemsize, "float16", config)
    return batch, (int(size[0]), int(size[1]))


def finish_encode(job: EncodeJob, model: Autoencoder, outputs: list[tuple[Tensor, ...]]) -> EncodedLatents:
    """Map each image's moments to the view of the posterior that the job asked for.

    Args:
        job: what was asked for.
        model: that did it.
        outputs: of each image, as `Computed` has them: its moments, or fitted latents and their units.

    Raises:
        NonFiniteError: a number is beyond the range of the dtype that was asked for, or, scaled, of float32.
    """
    first, *others = (torch.cat(parts) for parts in zip(*outputs, strict=True))
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
        name: the model's, as it is served.
        spec: of that model.
        config: the limits.

    Raises:
        TensorError: the latents are more, or larger, than the format holds.
        RequestTooLarge: the payloads don't fit into one message.
    """
    provenance = Provenance(name, spec.latent_space, spec.weights_digest, size)
    kept = latents.values.half() if quality == LOSSLESS else latents.values
    payloads = [
        compress_latents(one.numpy(), quality, units=units, provenance=provenance)
        for one, units in zip(kept, latents.units or (spec.latent_units,) * len(kept), strict=True)
    ]
    _check_answer(sum(map(len, payloads)), "a lower quality", config)
    return payloads


def decompress(job: PayloadJob, model: Autoencoder, config: ServerConfig) -> DecodeJob:
    """Map `.lat` payloads to the same job with their latents; headers are checked before anything is made of them.

    Raises:
        BitstreamError: a payload is none, or not as it was written.
        LatentSpaceMismatch, TensorError, RequestTooLarge, InvalidRequest: as their names say.
    """
    headers = [read_header(payload) for payload in job.payloads]
    for index, header in enumerate(headers):
        model.check_latent_space(header, header.model)
        if (header.shape, header.image_size) != (headers[0].shape, headers[0].image_size):
            raise InvalidRequest(
                "lat.payloads",
                f"payload {index} has latents of the shape {header.shape} and the image size {header.image_size}, "
                f"payload 0 {headers[0].shape} and {headers[0].image_size}; send different sizes as items of a stream",
            )
    first = headers[0]
    size = None if first.image_size == (0, 0) else first.image_size
    _check_latents((len(headers), *first.shape), size, "lat.payloads", model.spec, config)
    # A few bytes can stand for any number of latents: no more are let in than a message could hold as float16.
    numbers, allowed = len(headers) * math.prod(first.shape), config.max_message_bytes // torch.float16.itemsize
    if numbers > allowed:
        raise RequestTooLarge(
            f"the payloads hold {numbers} latents; one request may have {allowed} (serve --max-message-mib); "
            "send fewer payloads at once"
        )
    latents = [decompress_latents(payload, math.prod(first.shape))[0] for payload in job.payloads]
    return DecodeJob(
        model=job.model,
        latents=torch.from_numpy(np.stack(latents).astype(np.float32, copy=False)),
        scaled=False,
        image_size=size,
        latent_space=first.latent_space,
        weights_digest=first.weights_digest,
        output=job.output,
    )


def prepare_decode(job: DecodeJob, model: Autoencoder, config: ServerConfig) -> Tensor:
    """Map a job to its raw latents for the device, float32 (B,C,h,w).

    Raises:
        TensorError, NonFiniteError, RequestTooLarge, InvalidRequest: as their names say.
    """
    height, width = _check_latents(job.latents.shape, job.image_size, "latents", model.spec, config)
    latents = job.latents.float()
    if isinstance(job.output, torch.dtype):
        _check_answer(len(latents) * 3 * height * width * job.output.itemsize, "uint8", config)
    _check_finite(latents, "latents")
    return model.to_raw(latents, job.scale, job.shift) if job.scaled else latents


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


def check_batch(images: int, config: ServerConfig) -> None:
    """Refuse more images than one request may have; raises TensorTooLarge."""
    if images > config.max_batch:
        raise TensorTooLarge(
            f"the request has {images} images; at most {config.max_batch} are accepted (serve --max-batch)"
        )


def _read_files(job: EncodeJob, spec: AutoencoderSpec, config: ServerConfig) -> list[geometry.Pixels]:
    """Map a job's image files to their pixels, framed to the target size if there is one; all of one size."""
    assert not isinstance(job.image, Tensor)  # or there are no files
    files = (job.image,) if isinstance(job.image, bytes) else job.image
    check_batch(len(files), config)
    target_size = _target_size(job, spec)
    pictures: list[geometry.Pixels] = []
    for index, file in enumerate(files):
        picture = read_image(file, config.image_limits)
        if target_size is not None:
            config.image_limits.check(target_size[1], target_size[0])
            picture = geometry.resize_to_cover(picture, target_size[1], target_size[0])
        height, width = picture.shape[:2]
        _check_pixels(len(files), height, width, config)
        pictures.append(picture)
        if picture.shape != pictures[0].shape:
            first = pictures[0].shape
            raise InvalidRequest(
                "image_file",
                f"file {index} is {width}x{height}, file 0 {first[1]}x{first[0]}; the files of one request are of one "
                "size: give a height and width to frame them to, or send them one by one",
            )
    return pictures


def _target_size(job: EncodeJob, spec: AutoencoderSpec) -> tuple[int, int] | None:
    """Return the size (height, width) that a file is framed to: the model's only one, or the one asked for."""
    wanted, fixed = job.target_size, spec.fixed_size
    if wanted is None or fixed is None or wanted == fixed:
        return fixed or wanted
    raise InvalidRequest(
        "target_size",
        f"target_size is {wanted[1]}x{wanted[0]}; this model takes {fixed[1]}x{fixed[0]} only, leave it out",
    )


def _check_latents(
    shape: tuple[int, ...], image_size: tuple[int, int] | None, field: str, spec: AutoencoderSpec, config: ServerConfig
) -> tuple[int, int]:
    """Check latents (B,C,h,w) before anything is made of them; return the height and width of their images, cropped."""
    spec.check_latents(shape)
    check_batch(shape[0], config)
    height, width = (side * spec.downsample_factor for side in shape[2:])
    config.image_limits.check(width, height)
    _check_pixels(shape[0], height, width, config)
    if image_size is None:
        return height, width
    # An image is padded by less than f pixels, and for a model of one size not at all.
    padding = 0 if spec.fixed_size is not None else spec.downsample_factor - 1
    for side, padded, name in zip(image_size, (height, width), ("height", "width"), strict=True):
        if not padded - padding <= side <= padded:
            held = f"{padded - padding} to {padded}" if padding else str(padded)
            raise InvalidRequest(
                f"{field}.image_size.{name}", f"{name} is {side}; latents of this shape hold {held} pixels"
            )
    return image_size


def _check_pixels(images: int, height: int, width: int, config: ServerConfig) -> None:
    """Check that images are together no more than raw ones in one message: small files can be large images."""
    pixels, allowed = images * height * width, config.image_limits.max_pixels
    if pixels > allowed:
        raise RequestTooLarge(
            f"{images} images of {width}x{height} have {pixels} pixels; one request may have {allowed} "
            "(serve --max-message-mib); send fewer at once"
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


def _check_answer(num_bytes: int, smaller: str, config: ServerConfig) -> None:
    if num_bytes + MESSAGE_OVERHEAD > config.max_message_bytes:
        raise RequestTooLarge(
            f"the answer would take {num_bytes} bytes; a message holds {config.max_message_bytes} "
            f"(serve --max-message-mib); ask for fewer images or for {smaller}"
        )
