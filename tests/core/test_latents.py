# SPDX-License-Identifier: Apache-2.0
"""Latents in the client's hands: what is refused, what a file keeps, how one samples."""

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from latentwire_client import LatentKind, Latents
from latentwire_codec.runtime.posterior import Posterior
from latentwire_core.latents import FORMAT
from latentwire_core.noise import MAX_SEED, seeded_noise

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Those of tests/codec/test_posterior.py: the client and the server must not drift apart together either.
GOLDEN = {
    (0, (1, 1, 1)): [0.4075264],
    (0, (4, 2, 2)): [0.4004281, 0.0161308, -0.5191518, -1.9764549],
    (1, (4, 2, 2)): [-2.0093257, 0.8354826, 1.5432141, -0.3929051],
    (MAX_SEED, (4, 2, 2)): [-1.5310644, -0.2271468, -1.6510643, 1.8644462],
    (7, (4, 64, 64)): [0.4354515, 0.9068016, -0.9816738, 0.2460283],
    (7, (3, 1, 1)): [-0.7668980, 0.2638216, -1.0493101],
}


def zeros(*shape: int, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    return np.zeros(shape or (1, 4, 2, 3), dtype)


def moments(batch: int = 2) -> Latents:
    generator = np.random.default_rng(3)
    mean, logvar = (generator.normal(size=(batch, 4, 2, 3)).astype(np.float32) for _ in range(2))
    return Latents(mean, logvar, LatentKind.MOMENTS, image_size=(15, 24), model="m", latent_space="s@1")


@st.composite
def any_latents(draw: st.DrawFn) -> Latents:
    kind = draw(st.sampled_from(LatentKind))
    dtype = draw(st.sampled_from([np.float32, np.float16]))
    arrays = hnp.arrays(dtype, draw(hnp.array_shapes(min_dims=4, max_dims=4, min_side=1, max_side=3)))
    values = draw(arrays)
    logvar = None
    if kind is LatentKind.MOMENTS and draw(st.booleans()):
        logvar = draw(hnp.arrays(dtype, values.shape))
    side = st.integers(1, 2**20)
    return Latents(
        values, logvar, kind,
        scaled=kind is not LatentKind.MOMENTS and draw(st.booleans()),
        image_size=draw(st.none() | st.tuples(side, side)),
        model=draw(st.text(max_size=9)), latent_space=draw(st.text(max_size=9)),
        weights_digest=draw(st.text(max_size=9)),
    )  # fmt: skip


def assert_equal(one: Latents, other: Latents) -> None:
    assert one.values.dtype == other.values.dtype
    assert one.values.tobytes() == other.values.tobytes()  # NaNs and the sign of zero as well
    assert one.values.shape == other.values.shape
    assert (one.logvar is None) == (other.logvar is None)
    if one.logvar is not None and other.logvar is not None:
        assert one.logvar.tobytes() == other.logvar.tobytes()
    for name in ("kind", "scaled", "image_size", "model", "latent_space", "weights_digest"):
        assert getattr(one, name) == getattr(other, name)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (zeros(4, 2, 2), {}, r"shape \(4, 2, 2\); \(B, C, h, w\) is needed"),
        (zeros(1, 1, 4, 2, 2), {}, r"\(B, C, h, w\) is needed"),
        (zeros(0, 4, 2, 2), {}, "each at least 1"),
        (zeros(1, 4, 0, 2), {}, "each at least 1"),
        (zeros(dtype=np.float64), {}, "latents are float64; float32 or float16 is needed"),
        (zeros(dtype=np.uint8), {}, "latents are uint8; float32 or float16 is needed"),
        (zeros(), {"kind": "moments", "logvar": zeros(1, 4, 2, 4)}, r"logvar has the shape \(1, 4, 2, 4\)"),
        (zeros(), {"kind": "moments", "logvar": zeros(dtype=np.float16)}, "logvar is float16, the mean float32"),
        (zeros(), {"logvar": zeros()}, "logvar comes with moments, not with a mode"),
        (zeros(), {"kind": "sample", "logvar": zeros()}, "not with a sample"),
        (zeros(), {"kind": "moments", "scaled": True}, "moments are always raw"),
        (zeros(), {"image_size": (0, 8)}, r"image size is \(height, width\) = \(0, 8\); each must be at least 1"),
        (zeros(), {"kind": "mean"}, "kind is 'mean'; it must be one of mode, sample, moments"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    values: npt.NDArray[Any], options: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Latents(values, **options)


def test_a_kind_may_be_given_by_its_name(tmp_path: Path) -> None:
    latents = Latents(zeros(), zeros(), "moments")  # type: ignore[arg-type]
    assert latents.kind is LatentKind.MOMENTS
    assert_equal(Latents.load(latents.save(tmp_path / "a")), latents)


def test_latents_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        moments().model = "other"  # type: ignore[misc]


def test_the_length_is_the_number_of_images_and_nbytes_is_that_of_all_arrays() -> None:
    assert len(moments(5)) == 5
    assert moments(5).nbytes == 2 * 5 * 4 * 2 * 3 * 4
    assert Latents(zeros(dtype=np.float16)).nbytes == 4 * 2 * 3 * 2


def test_the_representation_shows_shape_and_origin_but_no_numbers() -> None:
    assert repr(moments()) == "Latents(moments 2x4x2x3 float32, raw, s@1, image 24x15)"
    assert repr(Latents(zeros(), scaled=True)) == "Latents(mode 1x4x2x3 float32, scaled, unnamed space)"


def test_the_mode_of_moments_is_their_mean_and_a_sample_has_none() -> None:
    both = moments()
    mode = both.mode()
    assert mode.kind is LatentKind.MODE
    assert mode.logvar is None
    assert mode.values is both.values
    assert (mode.image_size, mode.model, mode.latent_space) == ((15, 24), "m", "s@1")
    with pytest.raises(ValueError, match="are a sample; their posterior's mode is not known"):
        both.sample([1, 2]).mode()


def test_a_sample_is_the_one_that_the_server_draws() -> None:
    both = moments()
    assert both.logvar is not None
    drawn = both.sample([11, MAX_SEED])
    theirs = Posterior(torch.from_numpy(both.values), torch.from_numpy(both.logvar)).sample([11, MAX_SEED])
    assert drawn.kind is LatentKind.SAMPLE
    assert drawn.logvar is None
    assert drawn.image_size == both.image_size
    np.testing.assert_allclose(drawn.values, theirs.numpy(), rtol=1e-6, atol=1e-6)


def test_a_sample_of_half_precision_moments_is_float32() -> None:
    half = Latents(zeros(dtype=np.float16), zeros(dtype=np.float16), LatentKind.MOMENTS)
    drawn = half.sample([5]).values
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn[0], seeded_noise(5, (4, 2, 3)))


def test_a_sample_needs_moments_with_a_log_variance_and_a_seed_for_each_image() -> None:
    with pytest.raises(ValueError, match=r"are a mode without logvar; encode with kind='moments'"):
        Latents(zeros()).sample([1])
    with pytest.raises(ValueError, match=r"are a moments without logvar"):
        Latents(zeros(), kind=LatentKind.MOMENTS).sample([1])
    for seeds in ([], [1], [1, 2, 3]):
        with pytest.raises(ValueError, match=f"{len(seeds)} seeds for 2 images; give one for each"):
            moments().sample(seeds)


def test_splitting_gives_single_images_with_the_same_origin() -> None:
    both = moments(3)
    parts = both.split()
    assert [len(part) for part in parts] == [1, 1, 1]
    assert {repr(part) for part in parts} == {"Latents(moments 1x4x2x3 float32, raw, s@1, image 24x15)"}
    assert both.logvar is not None
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), both.values)
    np.testing.assert_array_equal(
        np.concatenate([part.logvar for part in parts if part.logvar is not None]), both.logvar
    )
    assert Latents(zeros()).split()[0].logvar is None


@pytest.mark.parametrize(("seed", "shape"), GOLDEN)
def test_the_noise_is_what_it_always_was(seed: int, shape: tuple[int, int, int]) -> None:
    noise = seeded_noise(seed, shape)
    assert noise.dtype == np.float32
    assert noise.shape == shape
    golden = GOLDEN[seed, shape]
    np.testing.assert_allclose(noise.flatten()[: len(golden)], golden, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"seed is {seed}; it must be in 0\.\.2\^64-1"):
        seeded_noise(seed, (1, 1, 1))


@unhurried
@given(latents=any_latents())
def test_latents_survive_their_file(latents: Latents, tmp_path: Path) -> None:
    path = latents.save(tmp_path / "one.safetensors")
    assert_equal(Latents.load(path), latents)


def test_a_file_is_plain_safetensors_that_others_can_read(tmp_path: Path) -> None:
    path = moments().save(str(tmp_path / "one.safetensors"))
    assert path == tmp_path / "one.safetensors"
    tensors = load_file(path)
    assert sorted(tensors) == ["logvar", "mean"]
    np.testing.assert_array_equal(tensors["mean"], moments().values)
    assert sorted(load_file(moments().mode().save(path))) == ["latents"]


@pytest.mark.parametrize("order", ["C", "F", "sliced", "big-endian"])
def test_an_array_of_any_memory_layout_is_saved_right(tmp_path: Path, order: str) -> None:
    plain = np.arange(2 * 4 * 2 * 3, dtype=np.float32).reshape(2, 4, 2, 3)
    array = {
        "C": plain,
        "F": np.asfortranarray(plain),
        "sliced": np.repeat(plain, 2, axis=3)[..., ::2],
        "big-endian": plain.astype(">f4"),
    }[order]
    loaded = Latents.load(Latents(array).save(tmp_path / "a"))
    np.testing.assert_array_equal(loaded.values, plain)
    assert loaded.values.dtype == np.float32


def test_a_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    path = moments().save(tmp_path / "a")
    (tmp_path / "b").touch()
    assert path.stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_file_may_have_the_longest_name(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    assert_equal(Latents.load(moments().save(path)), moments())


@pytest.mark.parametrize(("home", "step"), [(os, "fsync"), (Path, "replace")])
def test_a_failure_leaves_the_old_file_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Any, step: str
) -> None:
    path = moments().save(tmp_path / "a")
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(home, step, fail)
        with pytest.raises(OSError, match="No space left"):
            moments(4).save(path)
    assert os.listdir(tmp_path) == ["a"]
    assert path.read_bytes() == before


def test_missing_folders_are_made_and_one_that_cannot_be_is_an_os_error(tmp_path: Path) -> None:
    path = moments().save(tmp_path / "new" / "newer" / "a")
    assert Latents.load(path).kind is LatentKind.MOMENTS
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        moments().save(path / "b")


def test_loading_what_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        Latents.load(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        Latents.load(tmp_path)


def refused(path: Path, *says: str) -> None:
    with pytest.raises(ValueError, match=r"a\.safetensors") as caught:
        Latents.load(path)
    for part in says:
        assert part in str(caught.value)


def test_a_file_truncated_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    path = moments().save(tmp_path / "a.safetensors")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path)
    path.write_bytes(whole + b"\0")
    refused(path)


@pytest.mark.parametrize(
    "content", [b"just some text, longer than a header's length\n" * 9, b"\0" * 64, b"\x89PNG\r\n"]
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    refused(path, "safetensors")


def test_safetensors_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"latents": zeros()}, path)
    refused(path, "has the format None", FORMAT)
    save_file({"latents": zeros()}, path, {"format": "pt"})
    refused(path, "has the format 'pt'", FORMAT)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2", "U16", "BOOL"])
def test_tensors_of_a_dtype_that_numpy_or_latents_lack_are_refused(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "a.safetensors"
    size = 1 if dtype.startswith(("F8", "BOOL")) else 2
    header = json.dumps(
        {
            "__metadata__": {"format": FORMAT, "kind": "mode", "scale": "raw"},
            "latents": {"dtype": dtype, "shape": [1, 1, 1, 4], "data_offsets": [0, 4 * size]},
        }
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4 * size)
    refused(path)


GOOD = {"format": FORMAT, "kind": "mode", "scale": "raw", "image_height": "15", "image_width": "24"}


@pytest.mark.parametrize(
    ("tensors", "change"),
    [
        (["latents"], {"kind": None}),
        (["latents"], {"kind": "mean"}),
        (["latents"], {"scale": None}),
        (["latents"], {"scale": "SCALED"}),
        (["latents"], {"image_width": None}),
        (["latents"], {"image_width": "wide"}),
        (["latents"], {"image_width": "0"}),
        (["latents"], {"kind": "moments"}),
        (["mean"], {}),
        (["mean"], {"kind": "moments", "scale": "scaled"}),
        ([], {}),
    ],
)
def test_a_file_with_something_missing_or_wrong_is_refused(
    tmp_path: Path, tensors: list[str], change: dict[str, str | None]
) -> None:
    path = tmp_path / "a.safetensors"
    metadata = {name: value for name, value in (GOOD | change).items() if value is not None}
    save_file({name: zeros() for name in tensors} | {"other": zeros(1)}, path, metadata)
    refused(path, "is not a whole file of latents")


def test_what_a_later_version_adds_to_a_file_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"latents": zeros(), "more": zeros(1)}, path, GOOD | {"more": "text"})
    assert Latents.load(path).image_size == (15, 24)


def test_the_same_latents_are_the_same_bytes_in_every_file(tmp_path: Path) -> None:
    latents = Latents(
        np.ones((1, 4, 2, 3), np.float32), np.zeros((1, 4, 2, 3), np.float32), kind=LatentKind.MOMENTS,
        image_size=(16, 24), model="mödel", latent_space="space", weights_digest="0a" * 32,
    )  # fmt: skip
    written = {latents.save(tmp_path / f"{number}.safetensors").read_bytes() for number in range(20)}
    assert len(written) == 1
    (data,) = written
    assert int.from_bytes(data[:8], "little") % 8 == 0
    assert np.array_equal(Latents.load(tmp_path / "0.safetensors").values, latents.values)
    assert Latents.load(tmp_path / "0.safetensors").model == "mödel"
