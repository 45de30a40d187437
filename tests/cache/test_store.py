# SPDX-License-Identifier: Apache-2.0
"""A store: each file whole or not there, in a local folder and in fsspec's store of objects in memory."""

import pickle
import uuid
from pathlib import Path

import pytest

from latentwire_cache.settings import CacheError
from latentwire_cache.store import Store, open_store


@pytest.fixture(params=["local", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    locations = {
        "local": str(tmp_path / "cache"), "file": f"file://{tmp_path}/cache", "memory": f"memory://{uuid.uuid4().hex}",
    }  # fmt: skip
    return open_store(locations[request.param])


def test_what_is_written_is_read_whole_and_in_parts(store: Store) -> None:
    store.write("shards/a.bin", b"0123456789")
    assert store.read("shards/a.bin") == b"0123456789"
    assert store.read("shards/a.bin", 3, 7) == b"3456"
    assert store.read("shards/a.bin", 8) == b"89"
    assert store.read("shards/a.bin", 0, 2) == b"01"


def test_writing_replaces_and_creating_does_not(store: Store) -> None:
    store.write("a", b"1")
    store.write("a", b"2")
    assert not store.create("a", b"3")
    assert store.read("a") == b"2"
    assert store.create("folder/b", b"4")
    assert store.read("folder/b") == b"4"


def test_names_are_those_below_the_folder_sorted(store: Store) -> None:
    for name in ("m/b", "m/a/c", "n/d", "m/a/b"):
        store.write(name, b"")
    assert list(store.names("m")) == ["m/a/b", "m/a/c", "m/b"]
    assert list(store.names("nowhere")) == []


def test_a_file_that_is_not_there_is_said_to_be_so_and_removing_it_is_no_error(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("a")
    store.remove("a")
    store.write("a", b"1")
    store.remove("a")
    assert list(store.names("")) == []


@pytest.mark.parametrize("name", ["../a", "/a", "b/../../a", "b\\a"])
def test_a_name_that_leads_out_of_the_store_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="leads out"):
        store.write(name, b"")


def test_a_store_goes_to_another_process_by_its_location(store: Store) -> None:
    store.write("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"1"


def test_partial_files_are_no_names_and_are_cleaned_away(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("m/a", b"1")
    (tmp_path / "m" / ".0123.partial").write_bytes(b"half")
    assert list(store.names("m")) == ["m/a"]
    assert store.clean("m") == 1
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["a"]


@pytest.mark.parametrize("url", ["nosuch://a/b", "s4://b"])
def test_a_url_of_an_unknown_kind_is_refused_with_its_name(url: str) -> None:
    with pytest.raises(CacheError, match=url):
        open_store(url)
