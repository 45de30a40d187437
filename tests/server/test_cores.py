# SPDX-License-Identifier: Apache-2.0
"""Affinity, quotas and variables -> the threads of OpenMP."""

import os
from pathlib import Path

import pytest

from latentwire_server.process import cores
from latentwire_server.process.cores import prepare_threads, usable_cores


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make control groups of version 2, with this process in `/outer/inner`, and a machine of 8 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    (tmp_path / "groups" / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "own").write_text("0::/outer/inner\n")
    return tmp_path / "groups"


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({}, 8),
        ({"outer/inner": "max 100000"}, 8),
        ({"outer/inner": "300000 100000"}, 3),
        ({"outer": "250000 100000", "outer/inner": "400000 100000"}, 2),
        ({"": "100000 100000"}, 1),
        ({"outer/inner": "5000 100000"}, 1),
        ({"outer/inner": "1600000 100000"}, 8),
        ({"outer/inner": "nonsense"}, 8),
        ({"outer/inner": "100000 0"}, 8),
    ],
)
def test_no_more_cores_are_used_than_each_group_may(groups: Path, quotas: dict[str, str], cores: int) -> None:
    for group, quota in quotas.items():
        (groups / group / "cpu.max").write_text(quota)
    assert usable_cores(groups, groups.parent / "own") == cores


def test_a_system_without_groups_has_the_cores_of_the_affinity(groups: Path, tmp_path: Path) -> None:
    assert usable_cores(groups, tmp_path / "missing") == 8


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 3)
    variables = {"OMP_WAIT_POLICY": "active"}
    prepare_threads(variables)
    assert variables == {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "3"}
    own = {"OMP_NUM_THREADS": "1"}
    prepare_threads(own)
    assert own == {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
