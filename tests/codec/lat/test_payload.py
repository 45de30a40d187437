# SPDX-License-Identifier: Apache-2.0
"""Images and latents of any VAE become payloads and come back; payloads that contradict themselves are refused."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from latentwire_codec.images import pixels
from latentwire_codec.images.geometry import crop, pad_to_multiple
from latentwire_codec.lat.context import FREQUENCY_BITS, SYMBOLS
from latentwire_codec.lat.images import compress, decompress
from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.lat.payload import Provenance, compress_latents, decompress_latents
from latentwire_codec.lat.tables import Tables, common_tables
from latentwire_codec.load import load_autoencoder
from latentwire_codec.metrics import scores
from latentwire_core import container
from latentwire_core.container import PayloadKind, Sections
from latentwire_core.errors import (
    BitstreamError,
    LatentSpaceMismatch,
    Malformed,
    NonFiniteError,
    TensorError,
    UnsupportedVersion,
)
from latentwire_core.quality import STEPS as QUALITIES
from latentwire_core.quality import step_multiple
from tests.codec.lat.lat_golden import CASES, read

Pixels = npt.NDArray[np.uint8]
shapes = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)),
)
TAME = st.floats(-1e6, 1e6, width=32)


def steps_of(payload: bytes) -> npt.NDArray[np.float64]:
    header = container.read_header(payload)
    return np.array(header.numerators)[:, None, None] * 2.0**-header.exponent


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(np.float32, shapes, elements=TAME, fill=TAME), st.sampled_from(sorted(QUALITIES)))
def test_latents_come_back_within_two_steps(latents: npt.NDArray[np.float32], quality: str) -> None:
    payload = compress_latents(latents, quality)
    found, header = decompress_latents(payload)
    assert header.shape == found.shape == latents.shape
    assert found.dtype == np.float32
    assert (np.abs(found - latents) <= 2 * steps_of(payload) + np.abs(latents) * 2.0**-20).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 1, 1), (1, 40, 1), (32, 6, 6)])
@pytest.mark.parametrize("value", [0.0, 1e-30, 3.0, -1e6, 1e20])
def test_constants_of_any_size_come_back(shape: tuple[int, int, int], value: float) -> None:
    latents = np.full(shape, value, np.float32)
    found, _ = decompress_latents(compress_latents(latents))
    assert np.abs(found - latents).max() <= max(abs(value) * 2.0**-10, 2.0**-20)


def test_latents_of_more_steps_than_can_be_coded_are_refused() -> None:
    with pytest.raises(TensorError, match="take larger steps"):
        compress_latents(np.full((1, 1, 2), 3e38, np.float32))
    with pytest.raises(TensorError, match="take larger steps"):
        compress_latents(np.full((1, 1, 2), 1.0, np.float32), 1e-9)


def test_latents_of_32_channels_need_nothing_trained_for_them() -> None:
    random = np.random.default_rng(0)
    basis = random.normal(size=(32, 32))
    latents = np.einsum("ij,jhw->ihw", basis, random.normal(size=(32, 20, 24)).cumsum(axis=1)).astype(np.float32)
    payload = compress_latents(latents, "medium", provenance=Provenance("mine", "my-space@1", "", (160, 192)))
    found, header = decompress_latents(payload)
    assert (header.model, header.latent_space, header.image_size) == ("mine", "my-space@1", (160, 192))
    assert len(payload) < latents.size
    assert np.abs(found - latents).max() <= 2 * steps_of(payload).max()


def test_a_vector_takes_fewer_bytes_than_its_float16() -> None:
    vector = np.random.default_rng(0).normal(size=(512, 1, 1)).astype(np.float32)
    payload = compress_latents(vector)
    assert len(payload) < 512
    assert np.abs(decompress_latents(payload)[0] - vector).max() < 0.3


def test_a_better_quality_is_larger_and_closer() -> None:
    latents = np.random.default_rng(0).normal(size=(4, 24, 24)).astype(np.float32)
    payloads = [compress_latents(latents, quality) for quality in QUALITIES]
    errors = [float(np.square(decompress_latents(payload)[0] - latents).mean()) for payload in payloads]
    assert [len(payload) for payload in payloads] == sorted(map(len, payloads), reverse=True)
    assert errors == sorted(errors)


def test_a_number_is_a_quality_too() -> None:
    latents = np.random.default_rng(0).normal(size=(2, 8, 8)).astype(np.float32)
    assert compress_latents(latents, QUALITIES["high"]) == compress_latents(latents, "high")
    assert np.allclose(steps_of(compress_latents(latents, 0.1, units=(1.0, 3.0))).ravel(), [0.1, 0.3], rtol=1e-4)
    assert step_multiple("lossless") is None


@pytest.mark.parametrize("quality", ["best", "", "0.5", 0, -1.0, float("nan"), float("inf")])
def test_a_quality_that_is_none_is_refused(quality: str | float) -> None:
    with pytest.raises(TensorError, match="quality is"):
        compress_latents(np.zeros((1, 2, 2), np.float32), quality)


@pytest.mark.parametrize("quality", [1e-300, 1e300])
def test_steps_beyond_the_format_are_its_smallest_or_largest(quality: float) -> None:
    assert decompress_latents(compress_latents(np.zeros((1, 2, 2), np.float32), quality))[0].tolist() == [
        [[0, 0], [0, 0]]
    ]


@pytest.mark.parametrize("units", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, float("nan")), (1.0, 1.0, 1.0)])
def test_units_that_do_not_fit_are_refused(units: tuple[float, ...]) -> None:
    with pytest.raises(TensorError, match="2 positive numbers are needed"):
        compress_latents(np.zeros((2, 2, 2), np.float32), units=units)


@pytest.mark.parametrize("shape", [(4, 8), (1, 4, 8, 8), (0, 2, 2), (4, 0, 2), (4, 2, 0)])
def test_a_shape_that_is_not_one_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TensorError, match="of one image is needed"):
        compress_latents(np.zeros(shape, np.float32))


@pytest.mark.parametrize("quality", ["cache", "lossless"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_latents_that_are_not_finite_are_refused(value: float, quality: str) -> None:
    latents = np.zeros((2, 3, 3), np.float16)
    latents[1, 2, 0] = value
    with pytest.raises(NonFiniteError):
        compress_latents(latents, quality)


def test_lossless_takes_float16_alone() -> None:
    with pytest.raises(TensorError, match="only float16"):
        compress_latents(np.zeros((1, 2, 2), np.float32), "lossless")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_dtypes_are_coded_as_the_numbers_that_they_are(dtype: Any) -> None:
    latents = np.random.default_rng(0).integers(-99, 99, (2, 8, 8)) / 4
    assert compress_latents(latents.astype(dtype), "high") == compress_latents(latents.astype(np.float32), "high")


def test_fewer_latents_can_be_allowed() -> None:
    payload = compress_latents(np.zeros((2, 4, 4), np.float32))
    with pytest.raises(Malformed, match="at most 31"):
        decompress_latents(payload, max_values=31)
    decompress_latents(payload, max_values=32)


def test_other_tables_are_another_version() -> None:
    header, sections = container.unpack(read("odd-sides"))
    with pytest.raises(UnsupportedVersion, match="tables 00000001"):
        decompress_latents(container.pack(replace(header, table_id=1), sections))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("part", container.SECTION_NAMES)
def test_sections_of_nonsense_are_malformed(name: str, part: str) -> None:
    header, sections = container.unpack(read(name))
    data, random = getattr(sections, part), np.random.default_rng(0)
    for wrong in (b"", data[:-1], data[: len(data) // 2], data + b"\xff", b"\xff" * len(data), random.bytes(len(data))):
        try:
            found, _ = decompress_latents(container.pack(header, replace(sections, **{part: wrong})))
        except Malformed:
            continue
        assert np.isfinite(found).all()


def test_remainders_belong_to_float16_alone() -> None:
    header, sections = container.unpack(read("smooth"))
    with pytest.raises(Malformed, match="quantized latents have remainders"):
        decompress_latents(container.pack(header, replace(sections, remainders=b"\0")))


def test_float16_needs_steps_that_are_powers_of_two() -> None:
    header, sections = container.unpack(read("half"))
    wrong = replace(header, numerators=(3, *header.numerators[1:]))
    with pytest.raises(Malformed, match="not powers of 2"):
        decompress_latents(container.pack(wrong, sections))


def test_a_quantized_payload_is_no_float16() -> None:
    header, sections = container.unpack(read("coarse"))
    with pytest.raises(BitstreamError):
        decompress_latents(container.pack(replace(header, kind=PayloadKind.FLOAT16, reconstruction_offset=0), sections))


def test_an_empty_payload_of_the_largest_size_is_refused_at_once() -> None:
    header = container.read_header(read("one-place"))
    payload = container.pack(replace(header, shape=(1, 4096, 4096)), Sections())
    with pytest.raises(Malformed, match="0 bytes of weights"):
        decompress_latents(payload)


def coded_beside(shape: tuple[int, int, int], sections: Sections) -> bytes:
    """A payload of zeros, with sections of another one."""
    header, own = container.unpack(compress_latents(np.zeros(shape, np.float32)))
    return container.pack(header, replace(sections, weights=own.weights, symbols=own.symbols))


@pytest.mark.parametrize(
    "sections",
    [
        Sections(escapes=bytes(4 << 18)),
        Sections(escapes=b"\xff\xff\xff\x7f" * (1 << 18)),
        Sections(low_bits=bytes(23 << 15)),
        Sections(remainders=bytes(17 << 15)),
    ],
)
def test_sections_that_nothing_asks_for_take_no_more_memory_than_is_promised(sections: Sections) -> None:
    payload = coded_beside((1, 512, 512), sections)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            decompress_latents(payload)
        assert tracemalloc.get_traced_memory()[1] < 155 * 512 * 512 + (10 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "changed",
    [
        lambda image: image[..., ::-1],
        lambda image: image[::-1],
        lambda image: image[:, ::2],
        lambda image: np.broadcast_to(image[:1], image.shape),
    ],
)
@pytest.mark.parametrize("optimisation", [None, LatentOptimisation(1)])
def test_an_image_may_lie_in_memory_in_any_way(
    astronaut: Pixels, changed: Callable[[Pixels], Pixels], optimisation: LatentOptimisation | None
) -> None:
    image = changed(astronaut[:32, :32])
    assert compress(image, optimisation=optimisation) == compress(image.copy(), optimisation=optimisation)


def test_an_image_that_is_none_is_refused(astronaut: Pixels) -> None:
    wrong: list[Any] = [astronaut.astype(np.float32), astronaut[..., 0], astronaut[:0], astronaut.tolist()]
    for image in wrong:
        with pytest.raises(TensorError, match="pixels"):
            compress(image)


@pytest.mark.parametrize("size", [(64, 48), (61, 43), (1, 1), (8, 9)])
def test_an_image_keeps_its_size(astronaut: Pixels, size: tuple[int, int]) -> None:
    image = astronaut[100 : 100 + size[0], 200 : 200 + size[1]]
    payload = compress(image, quality="high")
    header = container.read_header(payload)
    assert (header.image_size, header.model, header.shape[0]) == (size, "f8c32", 32)
    decoded = decompress(payload)
    assert decoded.shape == image.shape
    assert decoded.dtype == np.uint8


@pytest.mark.parametrize("name", ["f8c4", "f8c32"])
def test_a_payload_is_decoded_by_the_bundled_model_of_its_space(astronaut: Pixels, name: str) -> None:
    image, model = astronaut[:40, 180:220], load_autoencoder(name)
    payload = compress(image, model=model)
    assert container.read_header(payload).model == ""
    np.testing.assert_array_equal(decompress(payload), decompress(payload, model=model))


@pytest.mark.parametrize("name", ["f8c4", "f8c32"])
def test_a_payload_of_another_bundled_model_is_refused(astronaut: Pixels, name: str) -> None:
    payload = compress(astronaut[:16, :16], model=name)
    other = "f8c32" if name == "f8c4" else "f8c4"
    with pytest.raises(LatentSpaceMismatch, match=f"decode them with the model that made them, '{name}'"):
        decompress(payload, model=other)


@pytest.mark.parametrize("name", ["f8c4", "f8c32"])
def test_a_photograph_is_recognised_after_coding(astronaut: Pixels, name: str) -> None:
    image = astronaut[:96, 180:276]
    latents = pad_to_multiple(image, 8)
    model = load_autoencoder(name)
    best = model.decode(model.encode(pixels.to_float(torch.from_numpy(latents)[None])).mode(), pixels.to_uint8)
    coded = decompress(compress(image, model=model), model=model)
    assert scores.psnr(best[0].numpy(), coded) > 30
    assert scores.psnr(image, coded) > scores.psnr(image, best[0].numpy()) - 1


def test_lossless_is_the_decoded_float16_of_the_latents(astronaut: Pixels) -> None:
    image = astronaut[:40, :51]
    model = load_autoencoder("f8c4")
    latents = model.encode(pixels.to_float(torch.from_numpy(pad_to_multiple(image, 8))[None])).mode().half()
    payload = compress(image, model=model, quality="lossless", name="mine")
    found, header = decompress_latents(payload)
    assert header.model == "mine"
    assert found.tobytes() == latents[0].numpy().tobytes()
    expected = crop(model.decode(latents.float(), pixels.to_uint8)[0].numpy(), 40, 51)
    assert np.array_equal(decompress(payload, model=model), expected)


def test_latents_of_another_space_are_refused() -> None:
    latents = np.zeros((4, 2, 2), np.float32)
    payload = compress_latents(latents, provenance=Provenance(latent_space="another@1"))
    with pytest.raises(LatentSpaceMismatch, match=r"'another@1', which no bundled model has \(f8c32, f8c4\); give"):
        decompress(payload)
    with pytest.raises(LatentSpaceMismatch, match="'another@1'; the model's is 'latentwire-f8c4@3'"):
        decompress(payload, model="f8c4")
    with pytest.raises(LatentSpaceMismatch, match="unknown, which no bundled model has"):
        decompress(compress_latents(latents))


def test_an_image_larger_than_its_latents_is_malformed() -> None:
    space = load_autoencoder("f8c4").spec.latent_space
    payload = compress_latents(
        np.zeros((4, 2, 2), np.float32), provenance=Provenance(latent_space=space, image_size=(16, 17))
    )
    with pytest.raises(Malformed, match="larger than what its latents decode to"):
        decompress(payload)


def test_latents_without_an_image_size_decode_to_all_of_it() -> None:
    space = load_autoencoder("f8c4").spec.latent_space
    payload = compress_latents(np.zeros((4, 2, 3), np.float32), provenance=Provenance(latent_space=space))
    assert decompress(payload).shape == (16, 24, 3)


def test_any_vae_that_is_loaded_can_be_used(tiny_kl_folder: Any, astronaut: Pixels) -> None:
    model = load_autoencoder(str(tiny_kl_folder))
    payload = compress(astronaut[:31, :33], model=model)
    header = container.read_header(payload)
    assert (header.model, header.latent_space) == ("", "")
    assert decompress(payload, model=model).shape == (31, 33, 3)
    # Its digest tells that another model did not make it.
    with pytest.raises(LatentSpaceMismatch):
        decompress(payload)


def test_a_payload_tells_no_folder_of_the_machine_that_made_it(tiny_kl_folder: Any, astronaut: Pixels) -> None:
    payload = compress(astronaut[:32, :32], model=str(tiny_kl_folder))
    assert container.read_header(payload).model == tiny_kl_folder.name
    assert str(tiny_kl_folder.parent).encode() not in payload


def test_vectors_of_images_of_one_size_are_coded(tiny_vector_vae: Any, tmp_path: Any, astronaut: Pixels) -> None:
    tiny_vector_vae.save_pretrained(tmp_path)
    model = load_autoencoder(str(tmp_path))
    payload = compress(astronaut[:32, :32], model=model)
    assert container.read_header(payload).shape == (6, 1, 1)
    assert decompress(payload, model=model).shape == (32, 32, 3)


# Other tables


def other_tables() -> Tables:
    """Tables by which all symbols are equally likely."""
    flat = np.full_like(common_tables().frequencies, (1 << FREQUENCY_BITS) // SYMBOLS)
    return replace(common_tables(), frequencies=flat)


@pytest.mark.parametrize("quality", ["medium", "lossless"])
def test_other_tables_can_be_measured(quality: str) -> None:
    latents = np.random.default_rng(0).normal(size=(3, 16, 17)).astype(np.float16)
    ours, theirs = compress_latents(latents, quality), compress_latents(latents, quality, tables=other_tables())
    assert len(ours) < len(theirs)
    assert container.read_header(theirs).table_id == other_tables().table_id
    found, _ = decompress_latents(theirs, tables=other_tables())
    assert np.abs(found - latents).max() <= 2 * steps_of(theirs).max()
    if quality == "lossless":
        assert found.tobytes() == latents.tobytes()


def test_a_payload_of_other_tables_needs_them() -> None:
    latents = np.zeros((1, 4, 4), np.float32)
    for written, read_with in ((other_tables(), None), (None, other_tables())):
        with pytest.raises(UnsupportedVersion, match=r"coded with tables [0-9a-f]{8}; this release has [0-9a-f]{8}"):
            decompress_latents(compress_latents(latents, tables=written), tables=read_with)


def test_the_tables_of_the_package_are_the_ones_by_default() -> None:
    latents = np.random.default_rng(0).normal(size=(2, 9, 9)).astype(np.float32)
    assert compress_latents(latents, tables=common_tables()) == compress_latents(latents)
