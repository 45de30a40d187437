# SPDX-License-Identifier: Apache-2.0
"""A file of tables is checked before it is used."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from latentwire_codec.lat.tables import FILE, common_tables, load_tables
from latentwire_core.errors import CheckpointError
from tests.codec.lat import lat_reference

TABLES = lat_reference.Tables(FILE)


def test_the_bundled_tables_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "again.safetensors"
    path.write_bytes(common_tables().to_bytes())
    assert load_tables(path).table_id == common_tables().table_id == TABLES.identity
    assert (common_tables().frequencies.sum(axis=1) == 1 << 16).all()


def broken(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return {
        **{name: array.astype(np.int32) for name, array in vars(common_tables()).items() if name != "table_id"},
        **arrays,
    }


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"scale_floor": np.zeros((2, 6), np.int32)}, "scale_floor has the shape"),
        ({"scale_weights": np.full((2, 7, 7), -1, np.int32)}, "scale_weights is not all within"),
        ({"scale_weights": np.full((2, 7, 7), 1 << 19, np.int32)}, "scale_weights is not all within"),
        ({"scale_spread": np.full((2, 7), 1 << 17, np.int32)}, "scale_spread is not all within"),
        ({"frequencies": np.full((252, 32), 2047, np.int32)}, "frequencies are not all"),
        ({"another": np.zeros(1, np.int32)}, "another"),
    ],
)
def test_a_file_that_holds_no_tables_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], problem: str) -> None:
    save_file(broken(**arrays), tmp_path / "prior.safetensors")
    with pytest.raises(CheckpointError, match=problem):
        load_tables(tmp_path / "prior.safetensors")


@pytest.mark.parametrize("content", [None, b"", b"no tables"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "prior.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="holds no tables"):
        load_tables(path)


def test_a_frequency_of_0_is_refused() -> None:
    frequencies = common_tables().frequencies.copy()
    frequencies[0, :2] += [frequencies[0, 1], -frequencies[0, 1]]
    with pytest.raises(ValueError, match="at least 1"):
        replace(common_tables(), frequencies=frequencies)
