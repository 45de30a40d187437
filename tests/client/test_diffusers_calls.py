# SPDX-License-Identifier: Apache-2.0
"""`remote_decode` and `remote_encode`: the results of diffusers' own functions, whose last step is the judge here."""

import inspect
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import remote_utils
from PIL import Image

from latentwire_client import Client, UnknownModel
from latentwire_client.diffusers import remote_decode, remote_encode
from tests.conftest import Pixels

PROCESSOR = VaeImageProcessor(vae_scale_factor=4)
SCALE, SHIFT = 0.5, 0.25  # of the small AutoencoderKL


@pytest.fixture
def endpoint(target: str) -> str:
    return f"{target}/tiny"


@pytest.fixture(scope="module")
def local(tiny_kl: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(tiny_kl).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def raw() -> torch.Tensor:
    return torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))


def decoded(local: AutoencoderKL, raw: torch.Tensor) -> torch.Tensor:
    images: torch.Tensor = local.decode(raw).sample
    return images


def uint8(images: torch.Tensor) -> torch.Tensor:
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def answer(body: torch.Tensor | bytes) -> Any:
    """What an HTTP endpoint would answer."""
    if isinstance(body, bytes):
        return SimpleNamespace(content=body, headers={})
    headers = {"shape": json.dumps(list(body.shape)), "dtype": str(body.dtype).removeprefix("torch.")}
    return SimpleNamespace(content=body.contiguous().numpy().tobytes(), headers=headers)


def as_file(images: torch.Tensor, image_format: str) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(uint8(images)[0].numpy())
    image.save(buffer, {"jpg": "JPEG", "png": "PNG"}[image_format], quality=90, subsampling=0)  # as the server writes
    return buffer.getvalue()


def check_same(found: Any, wanted: Any) -> None:
    """Compare two results of the same form; a level of 255 is allowed between 8-bit images, a little more by JPEG."""
    assert type(found) is type(wanted)
    if isinstance(wanted, torch.Tensor):
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        tolerance = 1 if wanted.dtype == torch.uint8 else 1e-4
        torch.testing.assert_close(found.float(), wanted.float(), atol=tolerance, rtol=0)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            check_same(one, other)
    else:
        assert (found.size, found.mode, found.format) == (wanted.size, wanted.mode, wanted.format)
        gap = np.abs(np.asarray(found, dtype=int) - np.asarray(wanted, dtype=int))
        assert gap.max() <= (12 if wanted.format == "jpeg" else 1)


def test_the_signatures_are_those_of_diffusers() -> None:
    for ours, theirs in ((remote_decode, remote_utils.remote_decode), (remote_encode, remote_utils.remote_encode)):
        wanted, found = inspect.signature(theirs).parameters, inspect.signature(ours).parameters
        assert [(each.name, each.default, each.kind) for each in found.values()] == [
            (each.name, each.default, each.kind) for each in wanted.values()
        ]


@pytest.mark.parametrize("processor", [None, PROCESSOR], ids=["no processor", "processor"])
@pytest.mark.parametrize("image_format", ["jpg", "png"])
@pytest.mark.parametrize("partial", [False, True], ids=["whole", "partial"])
@pytest.mark.parametrize("return_type", ["pil", "pt"])
@pytest.mark.parametrize("output_type", ["pil", "pt"])
def test_every_combination_of_types_gives_what_diffusers_gives(
    endpoint: str,
    local: AutoencoderKL,
    raw: torch.Tensor,
    output_type: Any,
    return_type: Any,
    partial: bool,
    image_format: Any,
    processor: VaeImageProcessor | None,
) -> None:
    images = decoded(local, raw)
    if output_type == "pil":
        served = answer(as_file(images, image_format) if processor is None else (images / 2 + 0.5).clamp(0, 1))
    else:
        served = answer(uint8(images) if partial else images)
    options: dict[str, Any] = {
        "processor": processor,
        "output_type": output_type,
        "return_type": return_type,
        "partial_postprocess": partial,
    }

    def run() -> Any:
        return remote_decode(endpoint, raw, do_scaling=False, image_format=image_format, **options)

    needs_processor = output_type == "pt" and not partial and return_type == "pil" and processor is None
    if needs_processor or (output_type, return_type, processor) == ("pil", "pt", None):
        # diffusers itself raises here, in the second case an UnboundLocalError.
        with pytest.raises(ValueError, match=r"processor|no tensor"):
            run()
    else:
        check_same(run(), remote_utils.postprocess_decode(served, **options))


@pytest.mark.parametrize(
    ("options", "scale", "shift"),
    [
        ({}, SCALE, SHIFT),
        ({"do_scaling": False}, 1.0, 0.0),
        ({"do_scaling": None}, 1.0, 0.0),
        ({"do_scaling": False, "scaling_factor": 3.0, "shift_factor": 9.0}, 1.0, 0.0),
        ({"scaling_factor": 0.8}, 0.8, 0.0),
        ({"scaling_factor": 0.8, "shift_factor": -0.5}, 0.8, -0.5),
        ({"shift_factor": -0.5}, SCALE, -0.5),
    ],
)
def test_latents_are_scaled_as_the_arguments_say(
    endpoint: str, local: AutoencoderKL, raw: torch.Tensor, options: dict[str, Any], scale: float, shift: float
) -> None:
    found = remote_decode(endpoint, (raw - shift) * scale, output_type="pt", return_type="pt", **options)
    check_same(found, decoded(local, raw))


def test_the_memory_layout_and_the_owner_of_a_tensor_make_no_difference(
    endpoint: str, local: AutoencoderKL, raw: torch.Tensor
) -> None:
    for tensor in (
        raw.contiguous(memory_format=torch.channels_last),
        raw.transpose(2, 3).contiguous().transpose(2, 3),
        torch.cat([raw, raw])[:1],
        raw.clone().requires_grad_(),
    ):
        found = remote_decode(endpoint, tensor, do_scaling=False, output_type="pt", return_type="pt")
        check_same(found, decoded(local, raw))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_floats_come_back_in_the_dtype_of_the_latents(
    endpoint: str, local: AutoencoderKL, raw: torch.Tensor, dtype: torch.dtype
) -> None:
    found = remote_decode(endpoint, raw.to(dtype), do_scaling=False, output_type="pt", return_type="pt")
    assert isinstance(found, torch.Tensor)
    assert found.dtype == dtype
    wanted = decoded(local, raw.to(dtype).float())
    torch.testing.assert_close(found.float(), wanted, atol=1e-2 if dtype == torch.bfloat16 else 2e-3, rtol=0)


def test_packed_and_unbatched_latents_are_taken(endpoint: str, local: AutoencoderKL, raw: torch.Tensor) -> None:
    images = decoded(local, raw)
    height, width = images.shape[2:]
    tokens = raw.view(1, 4, 4, 2, 6, 2).permute(0, 2, 4, 1, 3, 5).reshape(1, 24, 16)
    options: dict[str, Any] = {"do_scaling": False, "output_type": "pt", "return_type": "pt"}
    check_same(remote_decode(endpoint, tokens, height=height, width=width, **options), images)
    check_same(remote_decode(endpoint, raw[0], **options), images)
    with pytest.raises(ValueError, match="three axes"):
        remote_decode(endpoint, tokens, height=height, width=height, **options)


def test_of_several_images_none_is_dropped(endpoint: str, local: AutoencoderKL, raw: torch.Tensor) -> None:
    two = torch.cat([raw, -raw])
    wanted = [Image.fromarray(one.numpy()) for one in uint8(decoded(local, two))]
    for options in (
        {"image_format": "png"},
        {"output_type": "pt", "partial_postprocess": True},
        {"output_type": "pt", "processor": PROCESSOR},
        {"output_type": "pil", "processor": PROCESSOR},
    ):
        found = remote_decode(endpoint, two, do_scaling=False, **options)
        assert isinstance(found, list)
        for image in found:
            image.format = None
        check_same(found, wanted)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"output_type": "mp4"}, "images, not videos"),
        ({"return_type": "mp4"}, "images, not videos"),
        ({"output_type": "np"}, "pil or pt"),
        ({"image_format": "webp"}, "jpg or png"),
    ],
)
def test_what_has_no_answer_is_refused(endpoint: str, raw: torch.Tensor, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        remote_decode(endpoint, raw, **options)


@pytest.mark.parametrize("endpoint", ["http://localhost:1/", "localhost", "localhost:x", ""])
def test_an_endpoint_is_a_host_a_port_and_perhaps_a_model(endpoint: str, raw: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="HOST:PORT/MODEL"):
        remote_decode(endpoint, raw)
    with pytest.raises(ValueError, match="HOST:PORT/MODEL"):
        remote_encode(endpoint, Image.new("RGB", (8, 8)))


def test_without_a_model_the_default_answers_and_an_unknown_one_is_refused(target: str, raw: torch.Tensor) -> None:
    found = remote_decode(target, raw)
    assert isinstance(found, Image.Image)
    assert found.size == (96, 64)
    with pytest.raises(UnknownModel):
        remote_decode(f"{target}/other", raw)
    with pytest.raises(UnknownModel):
        remote_encode(f"{target}/other", Image.new("RGB", (8, 8)))


@pytest.mark.parametrize(("scaling", "shift"), [(None, None), (0.5, None), (None, 0.25), (0.5, 0.25)])
def test_images_of_every_form_encode_to_the_scaled_mode(
    endpoint: str, local: AutoencoderKL, astronaut: Pixels, scaling: float | None, shift: float | None
) -> None:
    pixels = np.ascontiguousarray(astronaut[:32, :48])
    floats = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    wanted = (local.encode(floats).latent_dist.mode() - (shift or 0)) * (scaling or 1)
    half = wanted.half()
    integers = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # not contiguous
    for image, expected in (
        (floats, wanted),
        (floats[0], wanted),
        (floats.contiguous(memory_format=torch.channels_last), wanted),
        (integers, half),
        (integers[0], half),
        (Image.fromarray(pixels), half),
    ):
        found = remote_encode(endpoint, image, scaling, shift)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        torch.testing.assert_close(
            found.float(), expected.float(), atol=2e-2 if found.dtype == half.dtype else 1e-4, rtol=0
        )


def test_an_image_of_any_size_encodes(endpoint: str, target: str, astronaut: Pixels) -> None:
    image = Image.fromarray(astronaut[:33, :50])
    found = remote_encode(endpoint, image)
    with Client(target, model="tiny") as client:
        np.testing.assert_array_equal(found.numpy(), client.encode(image).values)
    assert found.shape == (1, 4, 9, 13)
