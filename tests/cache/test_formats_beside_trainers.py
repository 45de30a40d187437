# SPDX-License-Identifier: Apache-2.0
"""Trainers' files read by the trainers' own readers; see `originals`."""

import base64
import hashlib
import io
import json
import logging
import math
import os
import random
import types
import typing
from collections import OrderedDict
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from glob import glob
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import torch
from diffusers.utils.torch_utils import randn_tensor
from safetensors import safe_open
from torch.utils.data import Dataset

from latentwire_cache.formats import Encoded
from latentwire_cache.formats.encoded import scaled
from tests.cache.encoded_items import SPACE, encoded
from tests.cache.originals import checkout, definitions, slow_beside_trainers
from tests.cache.test_formats import items_for, written

pytestmark = slow_beside_trainers
LOGGER = logging.getLogger("trainers")


def sample_of(item: Encoded) -> Any:
    assert item.sample is not None
    return item.sample


@pytest.mark.parametrize(
    ("name", "module", "strategy", "arguments"),
    [
        ("kohya-sd", "strategy_sd", "SdSdxlLatentsCachingStrategy", (True,)),
        ("kohya-sdxl", "strategy_sd", "SdSdxlLatentsCachingStrategy", (False,)),
        ("kohya-sd3", "strategy_sd3", "Sd3LatentsCachingStrategy", ()),
        ("kohya-flux", "strategy_flux", "FluxLatentsCachingStrategy", ()),
    ],
)
def test_sd_scripts_takes_the_cache_and_reads_it(
    name: str, module: str, strategy: str, arguments: tuple[Any, ...], tmp_path: Path
) -> None:
    library = checkout("sd-scripts") / "library"
    given = {"np": np, "os": os, "torch": torch, "logger": LOGGER, **vars(typing)}
    base = definitions(library / "strategy_base.py", "LatentsCachingStrategy", given=given)
    reader = definitions(library / f"{module}.py", strategy, given={**given, **base})[strategy](
        *arguments, True, 1, False
    )
    items = [
        replace(item, alpha_mask=np.ones(item.frame.bucket[::-1], np.float32) / 3)
        for item in [
            *items_for(name),
            encoded("a/my.photo_1.jpg", image=(700, 1100), resolution=512, flip=True, channels=16),
        ]
    ]
    written(tmp_path, name, [items])
    for item in items:
        original, bucket = item.frame.original, item.frame.bucket
        path = reader.get_latents_npz_path(str(tmp_path / item.key), original)
        assert reader.get_image_size_from_disk_cache_path("", path) == original
        assert path.endswith(reader.cache_suffix)
        assert reader.is_disk_cached_latents_expected(bucket, path, True, True)
        other = (bucket[0] + 64, bucket[1])
        assert reader.is_disk_cached_latents_expected(other, path, True, True) is (name in ("kohya-sd", "kohya-sdxl"))
        latents, size, crop, flipped, mask = reader.load_latents_from_disk(path, bucket)
        stored = scaled(sample_of(item), SPACE) if name == "kohya-flux" else sample_of(item)
        np.testing.assert_array_equal(torch.FloatTensor(latents), stored)
        assert (latents.dtype, size, flipped.shape) == (np.float32, list(original), latents.shape)
        manager = definitions(library / "train_util.py", "BucketManager", given=given)["BucketManager"]
        assert tuple(crop) == manager.get_crop_ltrb(bucket, original)
        np.testing.assert_array_equal(mask, item.alpha_mask)


@pytest.mark.parametrize(
    ("name", "short"), [("musubi-z-image", "zi"), ("musubi-qwen-image", "qi"), ("musubi-krea2", "kr2")]
)
def test_musubi_makes_batches_of_the_cache(name: str, short: str, tmp_path: Path) -> None:
    package = checkout("musubi-tuner") / "src/musubi_tuner"
    given: dict[str, Any] = {
        "np": np, "os": os, "glob": types.SimpleNamespace(glob=glob), "torch": torch, "random": random, "math": math,
        "logger": LOGGER, "load_file": safetensors.torch.load_file, "lru_cache": lru_cache, **vars(typing),
    }  # fmt: skip
    names = [
        line.split(" = ")[0]
        for line in (package / "dataset/architectures.py").read_text().splitlines()
        if " = " in line
    ]
    given |= definitions(package / "dataset/architectures.py", *names, given={})
    given |= definitions(package / "dataset/media_utils.py", "divisible_by", given={})
    given |= definitions(
        package / "utils/model_utils.py", "remove_dtype_suffix", "_known_dtype_strs", "dtype_to_str", given=given
    )
    given |= definitions(package / "dataset/bucket.py", "BucketSelector", "BucketBatchManager", given=given)

    class Finder:
        @staticmethod
        def find_keys(path: str, starts_with: str) -> list[str]:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
            return sorted(name for name in names if name.startswith(starts_with))

    given["safetensors_utils"] = Finder
    dataset_class = definitions(
        package / "dataset/image_video_dataset.py", "ItemInfo", "BaseDataset", "ImageDataset", given=given
    )["ImageDataset"]
    items = [encoded(f"cat_{n}.v1.jpg", rule="musubi", channels=16, resolution=512) for n in range(2)]
    written(tmp_path, name, [items])
    for item in items:
        text = f"{Path(item.key).stem}_{short}_te.safetensors"
        safetensors.torch.save_file({"varlen_embed_float32": torch.ones(3, 4)}, tmp_path / text)
    dataset = dataset_class.__new__(dataset_class)
    dataset.__dict__.update(
        resolution=(512, 512), enable_bucket=True, bucket_no_upscale=False, architecture=short, num_repeats=1,
        cache_directory=str(tmp_path), batch_size=2,
    )  # fmt: skip
    dataset.prepare_for_training()
    assert list(dataset.batch_manager.buckets) == [items[0].frame.bucket]
    batch = dataset.batch_manager[0]["latents"]
    means = [item.mean if short == "zi" else scaled(item.mean, SPACE)[:, None] for item in items]
    found = {each.numpy().tobytes() for each in batch}
    assert found == {np.ascontiguousarray(mean).tobytes() for mean in means}


def test_ai_toolkit_finds_the_latents_of_an_image_and_of_its_flip(tmp_path: Path) -> None:
    toolkit = checkout("ai-toolkit") / "toolkit"
    mixin = definitions(
        toolkit / "dataloader_mixins.py", "LatentCachingFileItemDTOMixin",
        given={
            "OrderedDict": OrderedDict, "os": os, "json": json, "base64": base64, "hashlib": hashlib, "torch": torch,
            "load_file": safetensors.torch.load_file, **vars(typing),
        },
    )["LatentCachingFileItemDTOMixin"]  # fmt: skip
    items = items_for("ai-toolkit-sdxl")
    written(tmp_path, "ai-toolkit-sdxl", [items])
    for item in items:
        for flip in (False, True):
            reader = mixin()
            frame = item.frame
            reader.__dict__.update(
                path=str(tmp_path / item.key), scale_to_width=frame.resized[0], scale_to_height=frame.resized[1],
                crop_x=frame.crop[0], crop_y=frame.crop[1], crop_width=frame.bucket[0], crop_height=frame.bucket[1],
                latent_space_version="sdxl", flip_x=flip, flip_y=False, is_video=False, is_audio_model=False,
                audio_data=None, is_latent_cached=True,
                dataset_config=types.SimpleNamespace(cache_tensors_to_disk=False),
            )  # fmt: skip
            sign = -1 if flip else 1
            np.testing.assert_array_equal(reader.get_latent(), scaled(sign * sample_of(item), SPACE))


def test_lightningdit_normalises_by_the_statistics_of_the_cache(tmp_path: Path) -> None:
    file = checkout("LightningDiT") / "datasets/img_latent_dataset.py"
    given = {
        "os": os,
        "np": np,
        "glob": glob,
        "torch": torch,
        "Dataset": Dataset,
        "safe_open": safe_open,
        "tqdm": iter,
    }
    shards = [items_for("lightningdit", 2), items_for("lightningdit", 3)[2:]]
    written(tmp_path, "lightningdit", shards)
    before = (tmp_path / "latents_stats.pt").read_bytes()
    dataset = definitions(file, "ImgLatentDataset", given=given)["ImgLatentDataset"](str(tmp_path))
    items = list(chain(*shards))
    assert len(dataset) == len(items)
    assert (tmp_path / "latents_stats.pt").read_bytes() == before
    own = dataset.compute_latent_stats()
    for name in ("mean", "std"):
        torch.testing.assert_close(torch.load(tmp_path / "latents_stats.pt")[name], own[name])
    for place, item in enumerate(items):
        feature, label = dataset[place]
        raw = (feature * own["std"][0] + own["mean"][0]).numpy()
        assert min(np.abs(raw - sign * sample_of(item)).max() for sign in (1, -1)) < 1e-5
        assert label.item() == item.label


def test_repa_pairs_images_and_features(tmp_path: Path) -> None:
    file = checkout("REPA") / "dataset.py"
    given = {"os": os, "json": json, "torch": torch, "np": np, "Dataset": Dataset, "PIL": PIL, "pyspng": None}
    items = [
        encoded(f"{n // 1000:05d}/img{n:08d}.png", rule="imagenet", resolution=64, label=n % 7) for n in (3, 1200, 40)
    ]
    for item in items:
        path = tmp_path / "images" / item.key
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (64, 64), (int(path.stem[3:]) % 256,) * 3).save(path)
    written(tmp_path, "repa", [items[:1], items[1:]])
    dataset = definitions(file, "CustomDataset", given=given)["CustomDataset"](str(tmp_path))
    assert len(dataset) == 3
    for place, item in enumerate(sorted(items, key=lambda each: each.key)):
        image, features, label = dataset[place]
        assert image[0, 0, 0] == int(Path(item.key).stem[3:]) % 256
        np.testing.assert_array_equal(features[:4], item.mean)
        assert item.logvar is not None
        np.testing.assert_allclose(features[4:], np.exp(item.logvar / 2), rtol=1e-6)
        assert label.item() == item.label


def test_fast_dit_pairs_latents_and_labels(tmp_path: Path) -> None:
    given = {"os": os, "np": np, "torch": torch, "Dataset": Dataset}
    dataset_class = definitions(checkout("fast-DiT") / "train.py", "CustomDataset", given=given)["CustomDataset"]
    shards = [items_for("fast-dit", 2), items_for("fast-dit", 3)[2:]]
    written(tmp_path, "fast-dit", shards)
    dataset = dataset_class(str(tmp_path / "imagenet256_features"), str(tmp_path / "imagenet256_labels"))
    assert len(dataset) == 3
    for place, item in enumerate(chain(*shards)):
        features, label = dataset[place]
        np.testing.assert_array_equal(features.squeeze(0), scaled(sample_of(item), SPACE))
        assert label.tolist() == [item.label]


def test_pixart_draws_from_the_features_where_its_list_says_they_are(tmp_path: Path) -> None:
    folder = checkout("PixArt-sigma") / "diffusion/data/datasets"
    registry = types.SimpleNamespace(register_module=lambda: lambda wrapped: wrapped)
    given: dict[str, Any] = {
        "os": os, "np": np, "torch": torch, "random": random, "json": json, "Dataset": Dataset, "DATASETS": registry,
        "randn_tensor": randn_tensor, "get_data_path": str, "get_root_logger": lambda *_: LOGGER,
        "InterpolationMode": types.SimpleNamespace(BICUBIC=3),
    }  # fmt: skip
    given |= definitions(folder / "utils.py", "ASPECT_RATIO_1024", "ASPECT_RATIO_2048", "ASPECT_RATIO_2880", given={})
    given |= definitions(
        folder / "InternalData.py", "InternalData", "InternalDataSigma", "replace_img_ext", given=given
    )
    given |= definitions(folder / "InternalData_ms.py", "InternalDataMSSigma", "get_closest_ratio", given=given)
    items = [
        encoded(f"p/photo{n}.png", rule="pixart", resolution=1024, image=(900 + 300 * n, 1000), caption=f"photo {n}")
        for n in range(4)
    ]
    zero = np.float32(-200)  # no deviation: what is drawn is the mean
    items = [replace(item, logvar=np.full_like(item.mean, zero)) for item in items]
    root = tmp_path / "InternData"
    root.mkdir()
    written(root, "pixart-ms", [items[:2], items[2:]])
    listed = [{**each, "sharegpt4v": ""} for each in json.loads((root / "data_info.json").read_text())]
    (root / "data_info.json").write_text(json.dumps(listed))
    dataset = given["InternalDataMSSigma"](
        str(root), resolution=1024, load_vae_feat=True, load_t5_feat=False, aspect_ratio_type="ASPECT_RATIO_1024"
    )
    for item, path in zip(items, dataset.vae_feat_samples, strict=True):
        np.testing.assert_allclose(dataset.loader(path), item.mean, atol=1e-6)
    features = dataset[2][0]
    np.testing.assert_allclose(features, items[2].mean, atol=1e-6)
    squares = [encoded(f"p/my.photo{n}.png", rule="pixart-square", resolution=512) for n in range(2)]
    squares = [replace(item, logvar=np.full_like(item.mean, zero)) for item in squares]
    written(root, "pixart", [squares])
    single = given["InternalDataSigma"](str(root), resolution=512, load_vae_feat=True, load_t5_feat=False)
    for place, item in enumerate(squares):
        np.testing.assert_allclose(single[place][0], item.mean, atol=1e-6)


def test_simpletuner_looks_for_the_file_that_is_written(tmp_path: Path) -> None:
    file = checkout("SimpleTuner") / "simpletuner/helpers/caching/vae.py"
    given = {"os": os, "sha256": hashlib.sha256, "WebhookMixin": object, "logger": LOGGER, **vars(typing)}
    given["DEFAULT_NSFW_CHECK_MODELS_CSV"] = ""
    cache_class = definitions(file, "VAECache", given=given)["VAECache"]
    cache = cache_class.__new__(cache_class)
    cache.__dict__.update(
        hash_filenames=True, instance_data_dir="/images", cache_dir=str(tmp_path), image_data_backend=object()
    )
    items = [encoded("a/b/my.photo.jpg", rule="simpletuner"), encoded("top.png", rule="simpletuner")]
    written(tmp_path, "simpletuner", [items])
    for item in items:
        path, _ = cache.generate_vae_cache_filename(f"/images/{item.key}")
        np.testing.assert_array_equal(torch.load(path, weights_only=True), sample_of(item))


def test_mosaics_reader_and_its_training_set_read_the_shards(tmp_path: Path) -> None:
    base = checkout("streaming") / "streaming/base"
    given: dict[str, Any] = {"os": os, "np": np, "json": json, "deepcopy": deepcopy, **vars(typing)}
    for name in ("ABC", "abstractmethod"):
        given[name] = getattr(__import__("abc"), name)
    given |= {"dataclass": __import__("dataclasses").dataclass, "Self": typing.Self, "Iterator": typing.Iterator}
    given |= definitions(base / "array.py", "Array", given={**given, "NDArray": Any})
    given |= definitions(base / "format/base/reader.py", "FileInfo", "Reader", "JointReader", given=given)
    encodings = base / "format/mds/encodings.py"
    given |= definitions(encodings, "Encoding", "Bytes", "Str", given=given)
    simple = {"str": given["Str"](), "bytes": given["Bytes"]()}
    given["mds_decode"] = lambda encoding, data: simple[encoding].decode(data)
    given["is_mds_encoding_safe"] = lambda encoding: encoding in simple
    reader_class = definitions(base / "format/mds/reader.py", "MDSReader", given=given)["MDSReader"]
    shards = [items_for("mds", 2), items_for("mds", 3)[2:]]
    written(tmp_path, "mds", shards)
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["version"] == 2
    readers = [reader_class.from_json(str(tmp_path), "", each) for each in index["shards"]]
    for reader in readers:
        reader.validate(False)
    samples = [reader[place] for reader in readers for place in range(len(reader))]
    items = list(chain(*shards))
    assert [sample["key"] for sample in samples] == [item.key for item in items]

    class Stored:
        def __getitem__(self, place: int) -> Any:
            return samples[place]

    laion = checkout("diffusion") / "diffusion/datasets/laion/laion.py"
    training = definitions(
        laion, "StreamingLAIONDataset",
        given={
            "StreamingDataset": Stored, "BytesIO": io.BytesIO, "Image": PIL.Image, "torch": torch, "np": np,
            **vars(typing),
        },
    )["StreamingLAIONDataset"]  # fmt: skip
    dataset = training.__new__(training)
    tokenizer = lambda caption, **_: {"input_ids": list(caption.encode())}  # noqa: E731
    tokenizer.model_max_length = 77  # type: ignore[attr-defined]
    dataset.__dict__.update(transform=None, caption_drop_prob=0.0, image_size=256, tokenizer=tokenizer)
    for place, item in enumerate(items):
        sample = dataset[place]
        np.testing.assert_array_equal(sample["image_latents"], scaled(sample_of(item), SPACE).astype(np.float16))
        assert bytes(sample["captions"].tolist()).decode() == item.caption
