# SPDX-License-Identifier: Apache-2.0
"""A plan: the same for the same images, with a digest over all that counts; shards keep their names."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from latentwire_cache.buckets import size_rule
from latentwire_cache.changes import changes
from latentwire_cache.plan import Draft, Origin, Plan
from latentwire_cache.planning import make_plan
from latentwire_cache.settings import CacheError, Settings, differences
from latentwire_cache.store import Store, open_store
from tests.cache.images import MODEL, make_images, write_image

SETTINGS = Settings(MODEL, shard_items=4)


def drafted(
    folder: Path, settings: Settings = SETTINGS, previous: Plan | None = None, store: Store | None = None
) -> Draft:
    return make_plan(Origin(str(folder)), size_rule("exact", multiple=4), settings, previous=previous, store=store)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_images(tmp_path / "images", 20)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "cache"))


def keys(draft: Draft) -> list[str]:
    return [each.item.key for each in draft.planned]


def test_a_plan_holds_each_image_once_in_shards_of_one_bucket(images: Path, store: Store) -> None:
    draft = drafted(images)
    draft.save(store)
    plan = Plan.load(store)
    assert plan == draft.plan
    assert sorted(keys(draft)) == [f"{index:04}.png" for index in range(20)]
    assert plan.count == 20
    for shard, items in plan.all_items(store):
        assert len(items) == shard.count <= 4
        assert {each.frame.bucket for each in items} == {shard.bucket}
    assert [shard.number for shard in plan.shards] == list(range(6))


def test_the_same_images_in_another_folder_give_the_same_plan(images: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(images, moved)
    one, other = drafted(images).plan, drafted(moved).plan
    assert (one.digest, [shard.name for shard in one.shards]) == (other.digest, [shard.name for shard in other.shards])


def change_pixel(images: Path) -> None:
    pixels = np.array(Image.open(images / "0003.png"))
    pixels[5, 7, 1] ^= 1
    Image.fromarray(pixels).save(images / "0003.png")


def change_caption(images: Path) -> None:
    (images / "0004.txt").write_text("another")


def add_image(images: Path) -> None:
    write_image(images / "0000a.png", np.random.default_rng(9), (32, 32))


def remove_image(images: Path) -> None:
    (images / "0006.png").unlink()


@pytest.mark.parametrize(
    ("change", "words", "new_shards"),
    [
        (change_pixel, "1 changed image: 0003.png", 1),
        (change_caption, "1 changed caption or label: 0004.png", 0),
        (add_image, "1 added image: 0000a.png", 1),
        (remove_image, "1 removed image: 0006.png", 1),
    ],
)  # fmt: skip
def test_a_change_is_found_by_name_and_touches_only_the_shard_it_is_in(
    images: Path, store: Store, change: Callable[[Path], None], words: str, new_shards: int
) -> None:
    before = drafted(images)
    before.save(store)
    change(images)
    after = drafted(images, previous=before.plan, store=store)
    assert changes(before.planned, after.planned).in_words() == [words]
    assert after.plan.digest != before.plan.digest
    old, new = ({shard.name for shard in draft.plan.shards} for draft in (before, after))
    assert len(new - old) == new_shards
    assert min((int(name[:6]) for name in new - old), default=6) == 6
    assert sorted(keys(after)) == sorted(keys(drafted(images)))


@settings(max_examples=10)
@given(number=st.integers(0, 2**16))
def test_any_added_images_keep_all_shards(number: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("added")
    images, store = make_images(folder / "images", 7), open_store(str(folder / "cache"))
    before = drafted(images)
    before.save(store)
    write_image(images / f"{number:05}.png", np.random.default_rng(number), (32, 32))
    after = drafted(images, previous=before.plan, store=store)
    assert {shard.name for shard in before.plan.shards} < {shard.name for shard in after.plan.shards}
    assert after.plan.count == 8


OTHERS = {
    "flip": True, "alpha_mask": True, "keep": "mode", "dtype": "float16",
    "model": replace(MODEL, weights_digest="cd" * 32),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_setting_that_decides_latents_gives_every_shard_another_name(images: Path, name: str) -> None:
    settings = replace(SETTINGS, **{name: OTHERS[name]})  # type: ignore[arg-type]
    one, other = drafted(images).plan, drafted(images, settings).plan
    assert not {shard.name for shard in one.shards} & {shard.name for shard in other.shards}
    assert one.digest != other.digest


@pytest.mark.parametrize(("name", "value"), [("seed", 1), ("format", "kohya"), ("rule_options", {"resolution": 512})])
def test_a_setting_of_the_files_alone_changes_the_digest_and_keeps_the_shards(
    images: Path, name: str, value: object
) -> None:
    settings = replace(SETTINGS, **{name: value})  # type: ignore[arg-type]
    one, other = drafted(images).plan, drafted(images, settings).plan
    assert one.shards == other.shards
    assert one.digest != other.digest


def test_differences_name_the_setting_and_both_values() -> None:
    other = replace(
        SETTINGS, flip=True, rule_options={"resolution": 512}, model=replace(MODEL, weights_digest="cd" * 32)
    )
    assert differences(SETTINGS, other) == [
        "flip is false there and true now",
        "model weights digest is abababababab... there and cdcdcdcdcdcd... now",
        "rule options resolution is null there and 512 now",
    ]


def test_an_image_that_cannot_be_used_is_in_the_plan_with_its_reason(images: Path, store: Store) -> None:
    (images / "bad.png").write_bytes(b"no image")
    (images / "gone.png").symlink_to(images / "nowhere.png")
    draft = drafted(images)
    draft.save(store)
    plan = Plan.load(store)
    assert plan.count == 20
    assert plan.unusable[2] == 2
    reasons = {each.item.key: each.reason for each in plan.unusable_items(store)}
    assert "are not an image" in reasons["bad.png"]
    assert reasons["gone.png"] == "cannot be read: No such file or directory"


def test_a_folder_without_a_usable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(CacheError, match=r"none of the 1 images.*bad\.png"):
        drafted(tmp_path)
    (tmp_path / "bad.png").unlink()
    with pytest.raises(CacheError, match="holds no image"):
        drafted(tmp_path)


def test_a_store_without_a_plan_says_how_to_make_one(store: Store) -> None:
    with pytest.raises(CacheError, match="latentwire cache plan"):
        Plan.load(store)
    store.write("plan.json", b'{"format": "latentwire.cache.plan/9"}')
    with pytest.raises(CacheError, match="plan/9"):
        Plan.load(store)


def test_the_images_of_a_shard_fill_64_mib_at_most(images: Path) -> None:
    assert [shard.count for shard in drafted(images, Settings(MODEL)).plan.shards] == [7, 6, 7]
    wide = replace(MODEL, latent_channels=2**16)  # 32x32: 2**16 * 64 * 4 * 2 bytes are 32 MiB
    assert [shard.count for shard in drafted(images, Settings(wide)).plan.shards][:4] == [2, 2, 2, 1]
