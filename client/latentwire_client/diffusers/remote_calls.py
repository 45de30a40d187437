# SPDX-License-Identifier: Apache-2.0
"""diffusers' `remote_decode` and `remote_encode`, over gRPC: tensors and images -> one call -> images and tensors.

Signatures and results are those of `diffusers.utils.remote_utils`. What differs: an endpoint is HOST:PORT or
HOST:PORT/MODEL, of several images none is dropped, and tensors are sent as they are meant, whatever their device and
memory layout.
"""

import io
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor

from latentwire_client.client import Client
from latentwire_client.diffusers.served_model import HALVES, find_model
from latentwire_client.info import ModelInfo
from latentwire_core.latents import Latents

ENDPOINT = re.compile(r"(?P<target>[^/]+:\d+)(/(?P<model>.+))?")
# What diffusers calls them -> what the client calls them.
FILES = {"jpg": "jpeg", "png": "png"}
TYPES = ("pil", "pt")


def remote_decode(
    endpoint: str,
    tensor: Tensor,
    processor: VaeImageProcessor | None = None,
    do_scaling: bool = True,
    scaling_factor: float | None = None,
    shift_factor: float | None = None,
    output_type: Literal["mp4", "pil", "pt"] = "pil",
    return_type: Literal["mp4", "pil", "pt"] = "pil",
    image_format: Literal["png", "jpg"] = "jpg",
    partial_postprocess: bool = False,
    input_tensor_type: Literal["binary"] = "binary",
    output_tensor_type: Literal["binary"] = "binary",
    height: int | None = None,
    width: int | None = None,
) -> Image.Image | list[Image.Image] | Tensor:
    """Map latents to images.

    Args:
        endpoint: HOST:PORT or HOST:PORT/MODEL.
        tensor: float (B,C,h,w), (C,h,w), or packed as FLUX does, (B, h/2*w/2, 4C); on any device.
        processor: turns a float tensor into images; with output_type `pil` only a sign that one is wanted.
        do_scaling: False: the latents are raw. True: they are divided by scaling_factor, then shift_factor is added.
        scaling_factor: None: the model's own, and its own shift where none is given.
        shift_factor: None: 0.
        output_type: what the server sends: `pil` a file, or with a processor floats; `pt` floats, or with
            partial_postprocess uint8.
        return_type: what is returned.
        image_format: of the file.
        partial_postprocess: see output_type.
        input_tensor_type: without effect: tensors travel as their bytes.
        output_tensor_type: without effect likewise.
        height: of the image in pixels, for packed latents.
        width: likewise.

    Returns:
        `pil`: an image, for B > 1 a list of them. `pt`: uint8 (B,H,W,3) with partial_postprocess; else (B,3,H,W) in the
        dtype of the latents: about [-1,1], or in [0,1] with output_type `pil`.

    Raises:
        ValueError: the arguments contradict each other, or ask for a video.
        LatentwireError: see `latentwire_client.errors`.
    """
    _check(processor, output_type, return_type, image_format, partial_postprocess)
    target, name = _split(endpoint)
    with Client(target) as client:
        model = find_model(client.info(), name, target)
        values = _four_axes(tensor.detach().to("cpu", torch.float32), model, height, width)
        if do_scaling:
            values = _to_raw(values, model, scaling_factor, shift_factor)
        latents = Latents(values.numpy())
        if output_type == "pil" and processor is None:
            files = client.decode_files(latents, image_format=FILES[image_format], model=model.name)
            return _one_or_all([_open(file) for file in files])
        if output_type == "pt" and partial_postprocess:
            pixels = client.decode_array(latents, model=model.name)
            return torch.from_numpy(pixels) if return_type == "pt" else _one_or_all(list(map(Image.fromarray, pixels)))
        array = client.decode_array(latents, dtype=HALVES.get(tensor.dtype, "float32"), model=model.name)
    images = torch.from_numpy(array).to(tensor.dtype)
    if output_type == "pt" and return_type == "pil" and processor is not None:
        return _one_or_all(processor.postprocess(images, output_type="pil"))
    if output_type == "pil":
        images = (images / 2 + 0.5).clamp(0, 1)
    if return_type == "pt":
        return images
    levels = (images.permute(0, 2, 3, 1).float().numpy() * 255).round().astype(np.uint8)
    return list(map(Image.fromarray, levels))


def remote_encode(
    endpoint: str,
    image: Tensor | Image.Image,
    scaling_factor: float | None = None,
    shift_factor: float | None = None,
) -> Tensor:
    """Map an image to the mode of its latents.

    Args:
        endpoint: HOST:PORT or HOST:PORT/MODEL.
        image: a PIL image of any size, padded to a multiple of f; or a tensor (B,3,H,W) or (3,H,W), H and W multiples
            of f: float in [-1,1] or uint8 in 0..255; on any device.
        scaling_factor: latents are multiplied by it, after the shift; None: 1.
        shift_factor: what is subtracted from raw latents; None: 0.

    Returns:
        (B,C,h,w) in the dtype of a float tensor, else float16.

    Raises:
        ValueError: the endpoint or the tensor is none.
        LatentwireError: see `latentwire_client.errors`.
    """
    target, name = _split(endpoint)
    floats = isinstance(image, Tensor) and image.is_floating_point()
    dtype = image.dtype if isinstance(image, Tensor) and floats else torch.float16
    with Client(target, model=name) as client:
        latents = client.encode(_to_input(image), dtype="float32")
    values = torch.from_numpy(latents.values)
    scaled = (values - (shift_factor or 0.0)) * (1.0 if scaling_factor is None else scaling_factor)
    return scaled.to(dtype)


def _split(endpoint: str) -> tuple[str, str]:
    match = ENDPOINT.fullmatch(endpoint)
    if match is None:
        raise ValueError(
            f"endpoint is {endpoint!r}; HOST:PORT or HOST:PORT/MODEL is needed (for a URL use the functions of "
            "diffusers.utils)"
        )
    return match["target"], match["model"] or ""


def _check(
    processor: VaeImageProcessor | None, output_type: str, return_type: str, image_format: str, partial: bool
) -> None:
    """Refuse what has no answer."""
    for name, value, known in (
        ("output_type", output_type, TYPES),
        ("return_type", return_type, TYPES),
        ("image_format", image_format, tuple(FILES)),
    ):
        if value not in known:
            video = "; the models here make images, not videos" if value == "mp4" else ""
            raise ValueError(f"{name} is {value!r}; it must be {' or '.join(known)}{video}")
    if output_type == "pil" and return_type == "pt" and processor is None:
        raise ValueError("a file is no tensor: for return_type='pt' pass output_type='pt'")
    if output_type == "pt" and return_type == "pil" and not partial and processor is None:
        raise ValueError("`processor` is required to make images of floats; or pass partial_postprocess=True")


def _four_axes(values: Tensor, model: ModelInfo, height: int | None, width: int | None) -> Tensor:
    """Map latents to (B,C,h,w): as they are, one image's (C,h,w), or packed ones."""
    if values.ndim != 3:
        return values
    channels, side = model.latent_channels, 2 * model.downsample_factor
    rows, columns = (height or 0) // side, (width or 0) // side
    if values.shape[1:] == (rows * columns, 4 * channels):
        # A token is a 2x2 patch: its channels, then its rows, then its columns.
        patches = values.view(-1, rows, columns, channels, 2, 2)
        return patches.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, 2 * rows, 2 * columns)
    if len(values) == channels:
        return values[None]
    raise ValueError(
        f"latents have the shape {tuple(values.shape)}, with height {height} and width {width}; three axes are "
        f"({channels}, h, w) or packed, (B, height/{side} * width/{side}, {4 * channels})"
    )


def _to_raw(values: Tensor, model: ModelInfo, scaling_factor: float | None, shift_factor: float | None) -> Tensor:
    """Undo the scaling: divide, then shift."""
    own: tuple[Sequence[float], Sequence[float]] = (model.scale, model.shift)
    scale, shift = own if scaling_factor is None else ((scaling_factor,), (0.0,))
    if shift_factor is not None:
        shift = (shift_factor,)
    return values / torch.tensor(scale).view(1, -1, 1, 1) + torch.tensor(shift).view(1, -1, 1, 1)


def _to_input(image: Tensor | Image.Image) -> Any:
    """Map an image to what the client takes."""
    if not isinstance(image, Tensor):
        return image
    array = image.detach().cpu()
    if array.dtype == torch.uint8 and array.ndim in (3, 4):
        return array.movedim(-3, -1).contiguous().numpy()
    return array.to(torch.float16 if array.dtype == torch.float16 else torch.float32).numpy()


def _open(file: bytes) -> Image.Image:
    with Image.open(io.BytesIO(file)) as opened:
        image = opened.convert("RGB")
        image.format = (opened.format or "").lower()
    return image


def _one_or_all(images: list[Image.Image]) -> Image.Image | list[Image.Image]:
    return images[0] if len(images) == 1 else images
