# SPDX-License-Identifier: Apache-2.0
"""Latents that were fitted to their image decode closer to it in about as many bytes, for every kind of VAE."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from diffusers import AutoencoderTiny
from skimage import data

from latentwire_codec.images import pixels
from latentwire_codec.lat import optimise
from latentwire_codec.lat.images import compress, decompress, optimise_latents
from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.lat.payload import compress_latents, decompress_latents
from latentwire_codec.load import load_autoencoder
from latentwire_codec.metrics import scores
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_core import container
from latentwire_core.errors import NonFiniteError, TensorError
from tests.codec.runtime.test_autoencoder import wrap

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def photograph() -> Pixels:
    """Return a part of a photograph whose sides are no multiples of 8."""
    return np.ascontiguousarray(data.astronaut()[20:137, 150:283])


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    return load_autoencoder("f8c4", device="cpu")


def psnr_of(payload: bytes, image: Pixels, model: Autoencoder) -> float:
    return scores.psnr(image, decompress(payload, model=model))


@pytest.mark.parametrize(("quality", "gain_db"), [("cache", 0.3), ("high", 0.3), ("low", 0.1)])
def test_the_image_comes_back_closer_in_about_as_many_bytes(
    quality: str, gain_db: float, photograph: Pixels, model: Autoencoder
) -> None:
    plain = compress(photograph, model=model, quality=quality)
    refined = compress(photograph, model=model, quality=quality, optimisation=LatentOptimisation(12))
    assert psnr_of(refined, photograph, model) > psnr_of(plain, photograph, model) + gain_db
    assert len(refined) < 1.05 * len(plain)
    assert container.read_header(refined).numerators == container.read_header(plain).numerators


def test_structure_comes_back_closer_than_where_the_squared_error_alone_counts(
    photograph: Pixels, model: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refined() -> tuple[int, float, float]:
        payload = compress(photograph, model=model, quality="low", optimisation=LatentOptimisation(12))
        decoded = decompress(payload, model=model)
        return len(payload), scores.psnr(photograph, decoded), scores.ssim(photograph, decoded)

    size, psnr, ssim = refined()
    monkeypatch.setattr(optimise, "SIMILARITY_SHARE", 0.0)
    other_size, other_psnr, other_ssim = refined()
    assert ssim > other_ssim + 0.015
    assert psnr > other_psnr - 0.1
    assert size < 1.05 * other_size


@pytest.mark.parametrize(("height", "width"), [(10, 40), (7, 7), (11, 11)])
def test_an_image_too_small_for_a_similarity_is_fitted_too(
    height: int, width: int, photograph: Pixels, model: Autoencoder
) -> None:
    image = photograph[60 : 60 + height, 50 : 50 + width]
    plain = psnr_of(compress(image, model=model, quality="high"), image, model)
    refined = psnr_of(compress(image, model=model, quality="high", optimisation=LatentOptimisation(12)), image, model)
    assert refined > plain


def test_finer_steps_bring_it_no_less_close(photograph: Pixels, model: Autoencoder) -> None:
    # A search for a PSNR or a number of bytes counts on it.
    fine, finest = (
        psnr_of(compress(photograph, model=model, quality=step, optimisation=LatentOptimisation(12)), photograph, model)
        for step in (0.17, 2.0**-6)
    )
    assert finest > fine - 0.05


def test_more_weight_of_bits_takes_fewer_bytes(photograph: Pixels, model: Autoencoder) -> None:
    sizes = [
        len(compress(photograph, model=model, quality="high", optimisation=LatentOptimisation(12, weight)))
        for weight in (0, 1, 8)
    ]
    assert sizes[0] > sizes[1] > 1.05 * sizes[2]


def test_it_is_repeated_to_the_byte(photograph: Pixels, model: Autoencoder) -> None:
    first, second = (compress(photograph, model=model, optimisation=LatentOptimisation(3)) for _ in range(2))
    assert first == second


def encoded(image: Pixels, model: Autoencoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Map an image, of sides that the model takes, to its latents and its pixels as floats."""
    original = pixels.to_float(torch.tensor(image).unsqueeze(0))
    return model.encode(original).mode(), original


def test_the_quantizer_keeps_what_was_chosen(photograph: Pixels, model: Autoencoder) -> None:
    latents, image = encoded(photograph[:112, :128], model)
    chosen, units = optimise_latents(latents, image, "high", LatentOptimisation(5), model=model)
    assert chosen.dtype == np.float32
    kept, header = decompress_latents(compress_latents(chosen, "high", units=units))
    assert header.reconstruction_offset == 0
    np.testing.assert_allclose(kept, chosen, rtol=1e-6)


def test_windows_of_a_large_image_give_what_the_whole_gives(
    photograph: Pixels, model: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents, image = encoded(photograph[:112, :128], model)

    def refined() -> npt.NDArray[Any]:
        return optimise_latents(latents, image, "cache", LatentOptimisation(1), model=model)[0]

    # The similarity's Gaussian sees no further than its window.
    monkeypatch.setattr(optimise, "SIMILARITY_SHARE", 0.0)
    whole = refined()
    monkeypatch.setattr(optimise, "WINDOW", 5)
    # What a window does not see of its surroundings is beyond the decoder's reach.
    difference = np.abs(refined() - whole)
    assert (difference > 0).mean() < 0.01
    monkeypatch.setattr(optimise, "HALO", 0)
    assert (np.abs(refined() - whole) > 0).mean() > 0.01


@pytest.mark.parametrize(("side", "begins"), [(1, [0]), (128, [0]), (129, [0, 64]), (300, [0, 100, 200])])
def test_windows_cover_each_latent_once(side: int, begins: list[int]) -> None:
    windows = list(optimise._windows(side))
    assert [begin for begin, *_ in windows] == begins
    assert [place for begin, end, *_ in windows for place in range(begin, end)] == list(range(side))
    assert all(before == max(0, begin - 16) and after == min(side, end + 16) for begin, end, before, after in windows)


def tiny_autoencoder() -> Any:
    torch.manual_seed(3)
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("kind", ["tiny_latent_vae", "tiny_vector_vae", "kl", "tiny"])
def test_any_vae_is_brought_closer(kind: str, request: pytest.FixtureRequest, build_kl: Callable[..., Any]) -> None:
    module = build_kl() if kind == "kl" else tiny_autoencoder() if kind == "tiny" else request.getfixturevalue(kind)
    model = wrap(module)
    height, width = model.spec.fixed_size or (40, 48)
    image = np.ascontiguousarray(data.astronaut()[20 : 20 + height, 200 : 200 + width])
    plain = psnr_of(compress(image, model=model, quality=0.25), image, model)
    refined = compress(image, model=model, quality=0.25, optimisation=LatentOptimisation(15))
    assert psnr_of(refined, image, model) > plain


def test_a_model_in_half_precision_is_refined_in_float32_after_a_retry(
    tiny_latent_vae: Any, tmp_path: Any, photograph: Pixels
) -> None:
    tiny_latent_vae.save_pretrained(tmp_path)
    model = load_autoencoder(str(tmp_path), device="cpu", dtype="float16", scale=1.0)
    retried: list[int] = []
    # Large enough to leave float16 on the way, so that the float32 copy is made in inference mode.
    model.decode(torch.full((1, 4, 2, 2), 1e8), on_retry=retried.extend)
    assert retried == [0]
    payload = compress(photograph[:16, :24], model=model, optimisation=LatentOptimisation(3))
    assert decompress(payload, model=model).shape == (16, 24, 3)


def test_lossless_latents_cannot_be_fitted(photograph: Pixels, model: Autoencoder) -> None:
    with pytest.raises(TensorError, match="lossless keeps latents as they are"):
        compress(photograph, model=model, quality="lossless", optimisation=LatentOptimisation(1))


@pytest.mark.parametrize(
    ("iterations", "weight", "message"),
    [
        (0, 1.0, "a latent optimisation has 0 iterations; at least 1"),
        (-3, 1.0, "a latent optimisation has -3 iterations"),
        (5, -0.1, "the rate's weight is -0.1; it must be finite and at least 0"),
        (5, float("nan"), "the rate's weight is nan"),
        (5, float("inf"), "the rate's weight is inf"),
    ],
)
def test_numbers_out_of_range_are_refused(iterations: int, weight: float, message: str) -> None:
    with pytest.raises(TensorError, match=message):
        LatentOptimisation(iterations, weight)


def test_it_ends_where_a_pause_raises(photograph: Pixels, model: Autoencoder) -> None:
    latents, image = encoded(photograph[:64, :64], model)
    pauses = 0

    def pause() -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimise_latents(latents, image, "high", LatentOptimisation(50), model=model, pause=pause)
    assert pauses == 3


def test_it_pauses_before_each_window_of_each_iteration(
    photograph: Pixels, model: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents, image = encoded(photograph[:64, :64], model)
    monkeypatch.setattr(optimise, "WINDOW", 4)

    def pauses(iterations: int) -> int:
        calls: list[None] = []
        optimise_latents(
            latents, image, "high", LatentOptimisation(iterations), model=model, pause=lambda: calls.append(None)
        )
        return len(calls)

    assert pauses(3) - pauses(1) == 2 * 4


def test_what_does_not_decode_to_numbers_is_refused(build_kl: Callable[..., Any]) -> None:
    module = build_kl()
    model = wrap(module)
    image = torch.zeros(1, 3, 16, 16)
    latents = model.encode(image).mode()
    torch.nn.init.constant_(module.decoder.conv_out.bias, float("nan"))
    with pytest.raises(NonFiniteError):
        optimise_latents(latents, image, 0.5, LatentOptimisation(2), model=model)


def test_an_image_that_is_met_exactly_stays(model: Autoencoder) -> None:
    latents = model.encode(torch.zeros(1, 3, 64, 64)).mode()
    image = model.decode(latents).clamp(-1, 1)
    refined, units = optimise_latents(latents, image, 2.0**-6, LatentOptimisation(2), model=model)
    assert np.isfinite(refined).all()
    assert np.abs(refined - latents[0].numpy()).max() < 0.2 * max(units)
