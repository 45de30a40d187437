# SPDX-License-Identifier: Apache-2.0
"""Trainers' files, read back by the libraries that are installed."""

import io
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from torch.utils.data import DataLoader

from latentwire_cache.formats import FORMATS, REFUSED, Encoded
from latentwire_cache.formats.encoded import mean_and_std, scaled
from latentwire_cache.formats.kohya import crop_ltrb
from latentwire_cache.formats.lat_dataset import lat_dataset
from latentwire_codec.lat.payload import decompress_latents
from tests.cache.encoded_items import SPACE, encoded

# webdataset 1.0.2 leaves the tars that it has read to the garbage collector.
webdataset_leaves_files_open = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
SQUARE = ("lightningdit", "fast-dit", "repa", "mds", "pixart", "webdataset")


def items_for(name: str, count: int = 3) -> list[Encoded]:
    """Return images that have all that a format asks for."""
    chosen = FORMATS[name].rule
    resolution = 256 if name in SQUARE else 512
    channels = 16 if name.endswith(("sd3", "flux", "image", "krea2")) else 4
    return [
        encoded(
            f"a/photo{n}.png",
            rule=chosen,
            channels=channels,
            flip=True,
            label=n,
            caption=f"a photo {n}",
            resolution=resolution,
        )
        for n in range(count)
    ]


def files(name: str, items: Sequence[Encoded], **space: Any) -> dict[str, bytes]:
    return dict(FORMATS[name].files(items, replace(SPACE, **space), 7))


def written(folder: Path, name: str, shards: Sequence[Sequence[Encoded]]) -> None:
    """Write the files of shards and the index of a format."""
    trainer = FORMATS[name]
    for number, items in enumerate(shards):
        for path, data in trainer.files(items, SPACE, number):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
    notes = [json.loads(json.dumps(trainer.note(items, SPACE, number))) for number, items in enumerate(shards)]
    for path, data in trainer.index(notes):
        (folder / path).write_bytes(data)


def test_the_formats_load_no_heavy_package() -> None:
    heavy = "{'torch', 'cv2', 'webdataset', 'diffusers'}"
    script = f"import sys, latentwire_cache.formats, latentwire_cache.buckets; print({heavy} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_images_give_the_same_bytes(name: str) -> None:
    trainer = FORMATS[name]
    once, again = (dict(trainer.files(items_for(name), SPACE, 3)) for _ in range(2))
    assert once == again
    assert once
    notes = [trainer.note(items_for(name), SPACE, 3) for _ in range(2)]
    assert notes[0] == notes[1]
    assert dict(trainer.index(notes[:1])) == dict(trainer.index(notes[1:]))


@pytest.mark.parametrize("name", [name for name, each in FORMATS.items() if each.per_item])
def test_the_paths_of_an_image_are_known_before_it_is_encoded(name: str) -> None:
    items = items_for(name)
    announced = [path for item in items for path in FORMATS[name].paths(item.key, item.frame)]
    assert set(files(name, items)) == set(announced)


@pytest.mark.parametrize("name", [name for name, each in FORMATS.items() if not each.per_item])
def test_a_format_of_shards_has_no_paths_of_images(name: str) -> None:
    item = items_for(name)[0]
    assert FORMATS[name].paths(item.key, item.frame) == ()


@pytest.mark.parametrize("name", ["kohya-sdxl", "musubi-z-image", "simpletuner", "repa"])
def test_two_images_of_one_path_are_refused_by_name(name: str) -> None:
    first, second = items_for(name, 2)
    with pytest.raises(ValueError, match=r"a/photo\.jpg and a/photo\.png would both be written to"):
        files(name, [replace(first, key="a/photo.jpg"), replace(second, key="a/photo.png")])


@pytest.mark.parametrize("name", ["pixart", "repa"])
def test_two_images_of_one_path_in_different_shards_are_refused(name: str) -> None:
    first, second = items_for(name, 2)
    keys = {"pixart": ("a/1.jpg", "b/1.jpg"), "repa": ("a/1.jpg", "a/1.png")}[name]
    both = (replace(first, key=keys[0]), replace(second, key=keys[1]))
    notes = [FORMATS[name].note([each], SPACE, number) for number, each in enumerate(both)]
    with pytest.raises(ValueError, match=f"{keys[0]} and {keys[1]} would both be written to"):
        list(FORMATS[name].index(notes))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("lightningdit", {"flipped": None}, "a/photo0.png has no flipped copy"),
        ("lightningdit", {"label": None}, "a/photo0.png has no label"),
        ("fast-dit", {"label": None}, "a/photo0.png has no label"),
        ("pixart", {"logvar": None}, "a/photo0.png has no log-variance"),
        ("repa", {"logvar": None}, "a/photo0.png has no log-variance"),
    ],
)
def test_an_image_that_lacks_what_the_trainer_needs_is_refused_by_name(
    name: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        files(name, [replace(items_for(name)[0], **fields)])


@pytest.mark.parametrize("name", FORMATS)
def test_a_latent_that_is_not_finite_is_refused(name: str) -> None:
    item = items_for(name)[0]
    bad = np.full_like(item.mean, np.nan)
    logvar = None if item.logvar is None else np.full_like(item.mean, np.nan)
    with pytest.raises(Exception, match="finite"):
        files(name, [replace(item, mean=bad, sample=bad, logvar=logvar)])


def test_latents_of_two_shapes_do_not_share_a_shard() -> None:
    small, large = (encoded(f"{n}.png", rule="imagenet", resolution=n, flip=True, label=1) for n in (64, 128))
    for name in ("lightningdit", "fast-dit"):
        with pytest.raises(ValueError, match="needs latents of one shape"):
            files(name, [small, large])


def test_a_number_too_large_for_float16_is_refused_by_name() -> None:
    item = items_for("musubi-z-image")[0]
    with pytest.raises(ValueError, match=r"a latent of a/photo0\.png is not finite in float16; choose float32"):
        files("musubi-z-image", [replace(item, mean=np.full_like(item.mean, 1e6))], dtype="float16")


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="the dtype is 'float8'; it must be one of float32"):
        files("musubi-z-image", items_for("musubi-z-image"), dtype="float8")


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_format_has_a_reason(name: str) -> None:
    assert name not in FORMATS
    assert len(REFUSED[name].split()) > 8


@pytest.mark.parametrize(("family", "suffix"), [("sd", ""), ("sdxl", ""), ("sd3", "_40x80"), ("flux", "_40x80")])
def test_kohya_finds_latents_size_and_crop_under_its_keys(family: str, suffix: str) -> None:
    item = encoded("folder/my.photo.jpg", image=(1400, 700), flip=True)
    item = replace(item, frame=replace(item.frame, bucket=(640, 320)), mean=item.mean[:, :40, :80])
    item = replace(item, mean=np.zeros((4, 40, 80), np.float32), sample=np.ones((4, 40, 80), np.float32))
    mask = np.linspace(0, 1, 640 * 320, dtype=np.float32).reshape(320, 640)
    flipped = replace(item, sample=-item.sample) if item.sample is not None else item
    [(path, data)] = files(f"kohya-{family}", [replace(item, flipped=flipped, alpha_mask=mask)]).items()
    assert path == f"folder/my.photo_1400x0700_{family}.npz"
    stored = np.load(io.BytesIO(data))
    value = (1 - 0.25) * 0.5 if family == "flux" else 1.0
    np.testing.assert_array_equal(stored[f"latents{suffix}"], np.full((4, 40, 80), value, np.float32))
    assert stored[f"latents{suffix}"].dtype == np.float32
    assert stored[f"original_size{suffix}"].tolist() == [1400, 700]
    assert stored[f"crop_ltrb{suffix}"].tolist() == [0.0, 0.0, 640.0, 320.0]
    np.testing.assert_array_equal(stored[f"alpha_mask{suffix}"], mask)
    assert f"latents_flipped{suffix}" in stored


@pytest.mark.parametrize(
    ("bucket", "original", "left_top"), [((832, 1216), (900, 1400), (25, 0)), ((1152, 896), (500, 400), (16, 0))]
)
def test_the_crop_of_kohya_fits_the_image_into_the_bucket(
    bucket: tuple[int, int], original: tuple[int, int], left_top: tuple[int, int]
) -> None:
    left, top, right, bottom = crop_ltrb(bucket, original)
    assert (int(left), int(top)) == left_top
    assert right - left <= bucket[0]
    assert bottom - top <= bucket[1]


def test_kohya_refuses_a_size_under_which_sd_scripts_would_not_find_the_latents() -> None:
    with pytest.raises(ValueError, match="sd-scripts finds kohya-sd3's latents only at one for 8 pixels"):
        files("kohya-sd3", [encoded(factor=16)])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "short", "architecture"),
    [("musubi-z-image", "zi", "z_image"), ("musubi-qwen-image", "qi", "qwen_image"), ("musubi-krea2", "kr2", "krea2")],
)
def test_musubi_finds_the_mode_under_its_size_and_dtype(
    name: str, short: str, architecture: str, dtype: str, tmp_path: Path
) -> None:
    item = encoded("folder/my_cat.v1.jpg", rule="musubi", channels=16, resolution=256)
    [(path, data)] = files(name, [item], dtype=dtype).items()
    assert path == f"my_cat.v1_1400x0900_{short}.safetensors"
    (tmp_path / path).write_bytes(data)
    height, width = item.mean.shape[1:]
    with safe_open(tmp_path / path, framework="pt") as file:
        assert file.metadata() == {
            "architecture": architecture, "width": "1400", "height": "900", "format_version": "1.0.1"
        }  # fmt: skip
        [key] = file.keys()
        stored = file.get_tensor(key)
    assert key == f"latents_1x{height}x{width}_{dtype}"
    frames = short != "zi"
    expected = torch.from_numpy(scaled(item.mean, SPACE)[:, None] if frames else item.mean)
    assert torch.equal(stored, expected.to(getattr(torch, dtype)))


def test_ai_toolkit_names_a_file_by_the_hash_of_what_it_cuts() -> None:
    item = encoded("cat.jpg", rule="ai-toolkit", flip=True)
    frame = replace(item.frame, resized=(1244, 800), crop=(14, 0), bucket=(1216, 800))
    plain, flipped = files("ai-toolkit-sdxl", [replace(item, frame=frame)], dtype="bfloat16").items()
    assert plain[0] == "_latent_cache/cat_DlhNdN_GEgK1v5laA9PLjg.safetensors"
    assert item.sample is not None
    latent = safetensors.torch.load(plain[1])["latent"]
    assert torch.equal(latent, torch.from_numpy(scaled(item.sample, SPACE)).bfloat16())
    assert torch.equal(
        safetensors.torch.load(flipped[1])["latent"], torch.from_numpy(scaled(-item.sample, SPACE)).bfloat16()
    )


def test_lightningdit_gets_shards_and_the_statistics_of_all_samples(tmp_path: Path) -> None:
    shards = [items_for("lightningdit", 2), items_for("lightningdit", 3)[2:]]
    written(tmp_path, "lightningdit", shards)
    parts = [safetensors.torch.load_file(path) for path in sorted(tmp_path.glob("*.safetensors"))]
    latents = torch.cat([part["latents"] for part in parts])
    assert torch.equal(torch.cat([part["latents_flip"] for part in parts]), -latents)
    assert torch.cat([part["labels"] for part in parts]).tolist() == [0, 1, 2]
    statistics = torch.load(tmp_path / "latents_stats.pt")
    torch.testing.assert_close(statistics["mean"], latents.mean(dim=[0, 2, 3], keepdim=True))
    torch.testing.assert_close(statistics["std"], latents.std(dim=[0, 2, 3], keepdim=True))


def test_a_cache_without_shards_has_no_statistics() -> None:
    assert list(FORMATS["lightningdit"].index([])) == []


@webdataset_leaves_files_open
def test_webdataset_reads_every_sample_under_a_key_of_its_own(tmp_path: Path) -> None:
    keys = ["f.older/my.photo.v2.jpg", "f.older/my.photo.v2.png", "plain.jpg", ".hidden.jpg"]
    items = [encoded(key, caption="Füße", label=3, flip=True) for key in keys]
    for name in ("webdataset", "webdataset-sample", "webdataset-moments"):
        (tmp_path / f"{name}.tar").write_bytes(files(name, items)["000007.tar"])
        samples = list(webdataset.WebDataset(str(tmp_path / f"{name}.tar"), shardshuffle=False).decode())
        assert [sample["json"]["key"] for sample in samples] == keys
        assert len({sample["__key__"] for sample in samples}) == len(keys)
        for item, sample in zip(items, samples, strict=True):
            assert (sample["txt"], sample["cls"]) == ("Füße", 3)
            if name == "webdataset-moments":
                np.testing.assert_array_equal(sample["mean.npy"], item.mean)
                np.testing.assert_array_equal(sample["logvar.npy"], item.logvar)
                np.testing.assert_array_equal(sample["mean_flip.npy"], -item.mean)
            else:
                stored = item.sample if item.sample is not None else item.mean
                np.testing.assert_array_equal(sample["latent.npy"], stored.astype(np.float16))


@given(st.lists(st.text("ab._-/é", min_size=1, max_size=8).map(lambda text: text.strip("/") or "a"), max_size=6))
def test_no_two_samples_of_a_tar_merge(names: list[str]) -> None:
    items = [encoded(f"{name}/x.{number}.jpg", resolution=256) for number, name in enumerate(names)]
    items += [encoded(f"{name}.jpg", resolution=256) for name in sorted(set(names))]
    if not items:
        return
    stream = [{"fname": name, "data": b"", "__url__": ""} for name in _names(files("webdataset", items)["000007.tar"])]
    samples = list(webdataset.tariterators.group_by_keys(stream))
    assert len(samples) == len(items)


def _names(data: bytes) -> list[str]:
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


@pytest.mark.parametrize("name", ["pixart", "pixart-ms", "repa"])
def test_features_are_the_mean_and_then_the_standard_deviation(name: str) -> None:
    [item, *_] = items_for(name)
    [data] = files(name, [item]).values()
    mean, std = np.split(np.load(io.BytesIO(data)), 2)
    assert item.logvar is not None
    np.testing.assert_array_equal(mean, item.mean)
    np.testing.assert_allclose(std, np.exp(item.logvar / 2), rtol=1e-6)
    np.testing.assert_array_equal(np.concatenate([mean, std]), mean_and_std(item, name))


def test_pixart_finds_features_by_the_name_of_the_image_in_a_folder_of_the_resolution() -> None:
    single = encoded("a/my.photo.png", rule="pixart-square", resolution=512)
    several = encoded("a/b/c.jpg", rule="pixart", resolution=1024)
    assert list(files("pixart", [single])) == ["img_sdxl_vae_features_512resolution_new/my.photo.npy"]
    assert list(files("pixart-ms", [several])) == ["img_sdxl_vae_features_1024resolution_ms_new/a/b_c.npy"]
    assert np.load(io.BytesIO(files("pixart", [single], dtype="float16").popitem()[1])).dtype == np.float16
    with pytest.raises(ValueError, match="pixart needs squares"):
        files("pixart", [encoded()])
    with pytest.raises(ValueError, match="a size of no table"):
        files("pixart-ms", [encoded(rule="musubi")])


def test_pixart_gets_a_list_of_its_images() -> None:
    trainer, items = FORMATS["pixart-ms"], items_for("pixart-ms")
    [(path, data)] = trainer.index([trainer.note(items[2:], SPACE, 0), trainer.note(items[:2], SPACE, 1)])
    assert path == "data_info.json"
    assert [entry["path"] for entry in json.loads(data)] == [item.key for item in items]
    assert json.loads(data)[0] == {
        "path": "a/photo0.png", "width": 1400, "height": 900, "ratio": 900 / 1400, "prompt": "a photo 0"
    }  # fmt: skip


def test_repa_names_features_as_its_own_tool_does(tmp_path: Path) -> None:
    items = [
        encoded(f"{n // 1000:05d}/img{n:08d}.png", rule="imagenet", resolution=64, label=n % 7) for n in (3, 1200, 40)
    ]
    written(tmp_path, "repa", [items[:1], items[1:]])
    labels = json.loads((tmp_path / "vae-sd/dataset.json").read_text())["labels"]
    assert labels == [
        ["00000/img-mean-std-00000003.npy", 3],
        ["00000/img-mean-std-00000040.npy", 5],
        ["00001/img-mean-std-00001200.npy", 3],
    ]
    assert all((tmp_path / "vae-sd" / path).is_file() for path, _ in labels)


def test_fast_dit_pairs_latents_and_labels_by_sorted_names(tmp_path: Path) -> None:
    shards = [items_for("fast-dit", 2), items_for("fast-dit", 3)[2:]]
    written(tmp_path, "fast-dit", shards)
    features, labels = (
        [np.load(tmp_path / folder / name) for name in sorted(os.listdir(tmp_path / folder))]
        for folder in ("imagenet256_features", "imagenet256_labels")
    )
    assert [label.tolist() for label in labels] == [[0], [1], [2]]
    items = list(chain(*shards))
    for item, feature in zip(items, features, strict=True):
        assert item.sample is not None
        np.testing.assert_array_equal(feature, scaled(item.sample, SPACE)[None])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_simpletuner_loads_a_tensor_of_its_own_memory(dtype: str) -> None:
    item = encoded("a/photo.jpg", rule="simpletuner")
    [(path, data)] = files("simpletuner", [item], dtype=dtype).items()
    # SHA-256 of the five letters "photo".
    assert path == "a/55c64d0fcd6f9d5f7c828093857e3fdfda68478bb4e9bd24d481ef391c7804e8.pt"
    tensor = torch.load(io.BytesIO(data), weights_only=True)
    assert item.sample is not None
    assert torch.equal(tensor, torch.from_numpy(item.sample).to(getattr(torch, dtype)))
    assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_mds_holds_scaled_float16_samples_behind_offsets() -> None:
    items = items_for("mds", 2)
    [(path, data)] = files("mds", items).items()
    [(index_path, index)] = FORMATS["mds"].index([FORMATS["mds"].note(items, SPACE, 7)])
    [entry] = json.loads(index)["shards"]
    assert (path, index_path, entry["samples"]) == ("shard.00007.mds", "index.json", 2)
    assert entry["raw_data"] == {"basename": path, "bytes": len(data), "hashes": {}}
    offsets = np.frombuffer(data, "<u4", 3, 4)
    assert offsets[2] == len(data)
    for item, (begin, end) in zip(items, itertools.pairwise(offsets), strict=True):
        sample = data[begin:end]
        sizes = np.frombuffer(sample, "<u4", 4)
        starts = 16 + np.cumsum([0, *sizes])
        fields = dict(zip(entry["column_names"], (sample[a:b] for a, b in itertools.pairwise(starts)), strict=True))
        assert item.sample is not None
        latents = np.frombuffer(fields["latents_256"], np.float16).reshape(4, 32, 32)
        np.testing.assert_array_equal(latents, scaled(item.sample, SPACE).astype(np.float16))
        assert fields["caption"].decode() == item.caption
        assert Image.open(io.BytesIO(fields["jpg"])).convert("RGB").size == (1, 1)


def test_mds_refuses_images_that_are_no_squares() -> None:
    with pytest.raises(ValueError, match="mds needs squares"):
        files("mds", [encoded()])


@webdataset_leaves_files_open
@pytest.mark.parametrize("workers", [0, 2])
def test_a_torch_data_set_reads_lat_shards_whatever_the_workers(workers: int, tmp_path: Path) -> None:
    items = [encoded(f"{n}.jpg", resolution=256, caption=f"photo {n}", label=n, flip=True) for n in range(6)]
    paths = []
    for shard in range(3):
        [(path, data)] = FORMATS["lat"].files(items[2 * shard : 2 * shard + 2], SPACE, shard)
        (tmp_path / path).write_bytes(data)
        paths.append(str(tmp_path / path))
    loader = DataLoader(lat_dataset(paths, scaled=True), batch_size=None, num_workers=workers)
    read = {about["json"]["key"]: (latents, about) for latents, about in loader}
    assert sorted(read) == [item.key for item in items]
    for item in items:
        latents, about = read[item.key]
        assert item.sample is not None
        assert (about["txt"], about["cls"]) == (item.caption, item.label)
        # A payload of the quality `cache` is within half a step; its steps are a fraction of the spread.
        assert (latents.numpy() - scaled(item.sample, SPACE)).std() < 0.1
        assert latents.dtype == torch.float32


@webdataset_leaves_files_open
def test_flipped_latents_come_half_of_the_time(tmp_path: Path) -> None:
    items = [encoded(f"{n:02d}.jpg", resolution=256, flip=True) for n in range(40)]
    [(path, data)] = FORMATS["lat"].files(items, SPACE, 0)
    (tmp_path / path).write_bytes(data)
    torch.manual_seed(0)
    flips = 0
    for latents, about in lat_dataset([str(tmp_path / path)], flip=True, shuffle=8):
        item = items[int(about["__key__"])]
        assert item.sample is not None
        towards = float((latents.numpy() * item.sample).sum())
        flips += towards < 0
        assert about["json"]["key"] == item.key
    assert 8 <= flips <= 32


def test_a_lat_payload_names_its_space_and_the_size_of_the_bucket() -> None:
    import tarfile

    item = encoded(resolution=256)
    with tarfile.open(fileobj=io.BytesIO(files("lat", [item])["000007.tar"])) as archive:
        member = archive.extractfile("folder/photo.latent.lat")
        assert member is not None
        _, header = decompress_latents(member.read())
    assert (header.latent_space, header.weights_digest) == ("sd1", ("ab" * 32)[:16])
    assert header.image_size == item.frame.bucket[::-1]
