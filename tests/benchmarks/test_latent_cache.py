# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.latent_cache`: forms of latents, the bytes that count, and what other coders would take."""

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from skimage import data

from benchmarks.latent_cache import summary
from benchmarks.latent_cache.caching import (
    Quality,
    compare,
    describe,
    entropy,
    gaussian_bits,
    integers_of,
    lat_name,
    measure_model,
    narrowest,
    over_images,
    own_tables_bits,
)
from benchmarks.latent_cache.forms import FORMS, levels, zstd
from benchmarks.latent_cache.summary import Cost, counted, plots
from benchmarks.report.model import Source
from benchmarks.report.plots import Line
from latentwire_codec.lat.optimise import LatentOptimisation
from latentwire_codec.lat.payload import compress_latents, decompress_latents
from latentwire_core import container
from latentwire_core.errors import TensorError

Latents = npt.NDArray[np.float32]


def random_latents(channels: int = 4, height: int = 24, width: int = 20, seed: int = 0) -> Latents:
    drawn = np.random.default_rng(seed).normal(0, 2, (channels, height, width))
    return drawn.astype(np.float32)


@pytest.mark.parametrize(
    ("text", "fineness", "refinement"),
    [
        ("high", "high", None),
        ("0.25", 0.25, None),
        ("high+30", "high", LatentOptimisation(30)),
        ("0.25+20x1.5", 0.25, LatentOptimisation(20, 1.5)),
    ],
)
def test_a_quality_says_how_far_latents_are_fitted(
    text: str, fineness: str | float, refinement: LatentOptimisation | None
) -> None:
    assert Quality.parse(text) == Quality(fineness, refinement)


@pytest.mark.parametrize("text", ["high+", "high+x2", "high+two", "high+0", "high+3x", "high+3x-1"])
def test_a_malformed_refinement_is_refused(text: str) -> None:
    with pytest.raises(TensorError):
        Quality.parse(text)


def test_refined_latents_have_a_line_of_their_own_and_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Line] = []
    monkeypatch.setattr(summary, "line_plot", lambda lines, *_, **__: drawn.extend(lines))
    one = Cost(4000.0, 2.0, 8.0, 27.0, 0.1, 0.2)
    forms = [
        *(form.name for form in FORMS),
        *map(lat_name, ("lossless", "cache", "high", "high+20", "0.2+20", "high+5x2")),
    ]
    plots({"f8c4": dict.fromkeys(forms, one)})
    labels = [line.label for line in drawn]
    assert [label for label in labels if label.startswith(".lat")] == [".lat", ".lat lossless", ".lat +20", ".lat +5x2"]
    assert "fitted to their image" in counted(["high", "high+20"])[-1]
    assert "fitted to their image" not in counted(["high"])[-1]


def test_refined_latents_are_kept_as_they_were_chosen() -> None:
    model = Source("f8c4", device="cpu").load()
    image = np.ascontiguousarray(data.astronaut()[20:84, 150:230])
    measured = measure_model(model, ["high", "high+4"], image)
    plain, refined = (measured["forms"][lat_name(quality)] for quality in ("high", "high+4"))
    assert refined["psnr_db"] > plain["psnr_db"]
    assert refined["bytes"] == measured["coded"]["high+4"]["lat_bytes"]
    # Chosen as integers, they are the nearest ones, too.
    coded = measured["coded"]["high+4"]
    assert coded["own_tables_bits"] == coded["rounded_own_tables_bits"]


@pytest.mark.parametrize("channels", [1, 4, 16])
def test_every_form_gives_back_latents_and_counts_their_bytes(channels: int) -> None:
    latents = random_latents(channels)
    packed = {form.name: form.pack(latents) for form in FORMS}
    sizes = {name: each.num_bytes for name, each in packed.items()}
    assert sizes["float32"] == 4 * latents.size
    assert sizes["float16"] == 2 * latents.size
    assert sizes["int8"] == latents.size + 8 * channels
    assert sizes["float8 e4m3"] == latents.size
    assert sizes["int8, zstd 19"] == zstd(levels(latents)[0].tobytes()) + 8 * channels
    for name, limit in (("float32", 0), ("float16", 0.005), ("int8", 0.04), ("float8 e4m3", 0.5), ("PNG, 8 bit", 0.04)):
        assert np.abs(packed[name].latents - latents).max() <= limit
        assert packed[name].latents.dtype == np.float32
    assert (packed["PNG, 8 bit"].latents == packed["int8"].latents).all()


def test_a_constant_channel_and_large_latents_are_kept() -> None:
    latents = np.stack([np.full((4, 4), 3.5, np.float32), np.linspace(-1000, 1000, 16, dtype=np.float32).reshape(4, 4)])
    for form in FORMS:
        restored = form.pack(latents).latents
        assert np.isfinite(restored).all()
        assert (restored[0] == 3.5).all()


def test_the_entropy_of_counts_is_that_of_an_ideal_table() -> None:
    assert entropy([4, 4, 4, 4]) == pytest.approx(32)
    assert entropy([9]) == 0
    assert entropy([1, 0, 1]) == pytest.approx(2)


@pytest.mark.parametrize(("deviations_per_step", "bits"), [(1, 2.11), (2, 3.06), (4, 4.05), (0.5, 1.24)])
def test_the_bits_of_a_gaussian_are_those_that_are_known(deviations_per_step: float, bits: float) -> None:
    assert gaussian_bits(0.0, deviations_per_step) == pytest.approx(bits, abs=0.006)


def test_the_bits_of_a_gaussian_hold_far_from_zero_and_at_the_limits() -> None:
    assert gaussian_bits(1e6, 3.0) == pytest.approx(gaussian_bits(0.0, 3.0))
    assert gaussian_bits(0.3, 100.0) == pytest.approx(math.log2(100 * math.sqrt(2 * math.pi * math.e)), abs=1e-4)
    assert gaussian_bits(0.0, 0.0) == 0.0


def test_counts_of_a_folder_are_those_of_all_its_images_together() -> None:
    images = [np.random.default_rng(seed).integers(-5, 9, (3, 8, 7)) for seed in (0, 1)]
    channels = over_images([describe(image, image.astype(np.float64)) for image in images])
    together = np.concatenate([image.reshape(3, -1) for image in images], axis=1)
    assert sum(channel.table_bits for channel in channels) == pytest.approx(own_tables_bits(together))
    for channel, numbers in zip(channels, together, strict=True):
        assert channel.total == numbers.size
        assert channel.gaussian_bits / channel.total == pytest.approx(gaussian_bits(numbers.mean(), numbers.std()))


@pytest.mark.parametrize("channels", [4, 32])
def test_the_integers_of_a_payload_are_its_latents_in_steps(channels: int) -> None:
    latents = random_latents(channels)
    payload = compress_latents(latents, 0.5)
    integers, steps = integers_of(*container.unpack(payload))
    restored = decompress_latents(payload)[0] / steps.sizes[:, None, None]
    assert np.abs(restored - integers).max() <= 1
    found = compare(payload, latents)
    assert found["lat_bytes"] == len(payload)
    assert found["zstd_bytes"] == zstd(integers.astype(np.int8).tobytes())
    assert 0 < found["coded_bytes"] < found["lat_bytes"]
    assert found["own_tables_bits"] == pytest.approx(own_tables_bits(integers))
    assert sum(sum(channel["counts"]) for channel in found["channels"]) == latents.size


@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [
        ((0, 0), np.int8),
        ((-128, 127), np.int8),
        ((0, 128), np.int16),
        ((-129, 0), np.int16),
        ((-32768, 32767), np.int16),
        ((0, 32768), np.int32),
    ],
)
def test_integers_beside_lat_take_the_fewest_bytes_that_hold_them(numbers: tuple[int, int], dtype: type) -> None:
    assert narrowest(np.array(numbers, np.int64)) == dtype


def test_a_run_measures_models_of_4_and_of_32_channels(latent_cache_run: Path) -> None:
    run = json.loads((latent_cache_run / "run.json").read_text())
    assert [model["channels"] for model in run["parameters"]["models"]] == [4, 32]
    assert [failure["file"] for failure in run["failures"]] == ["not <b>an image.png"]
    for forms in run["summary"]["forms"].values():
        names = ["float32", "float16", "int8", "float8 e4m3", "PNG, 8 bit", "int8, zstd 19"]
        assert list(forms) == [*names, ".lat lossless", ".lat cache", ".lat 0.7"]
        assert forms["float16"]["ratio_to_float16"] == 1
        assert forms["float32"]["ratio_to_float16"] == 0.5
        assert forms["float32"]["lost_db"] == 0
        # Float16 latents are kept bit for bit, and so lose nothing beside them.
        assert forms[".lat lossless"]["psnr_db"] == pytest.approx(forms["float16"]["psnr_db"], abs=1e-6)
        assert forms[".lat 0.7"]["bytes_512"] < forms[".lat cache"]["bytes_512"] < forms["int8"]["bytes_512"]
    for qualities in run["summary"]["bits_per_latent"].values():
        for coding in qualities.values():
            assert coding["coded"] < coding["lat"]
            assert coding["own_tables"] <= coding["folder_tables"]


def test_bytes_are_those_of_512x512_pixels(latent_cache_run: Path) -> None:
    run = json.loads((latent_cache_run / "run.json").read_text())
    sizes = [row["models"]["f8c4"] for row in run["rows"]]
    expected = np.mean(
        [each["forms"]["float16"]["bytes"] * 512**2 / (each["width"] * each["height"]) for each in sizes]
    )
    assert run["summary"]["forms"]["f8c4"]["float16"]["bytes_512"] == pytest.approx(expected)
    assert sizes[0]["forms"]["float16"]["bytes"] == 2 * 4 * 21 * 22
