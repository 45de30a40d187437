# SPDX-License-Identifier: Apache-2.0
"""What the system lets this process use -> how many threads compute, and how they wait. Needs no torch."""

import os
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def prepare_threads(variables: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables that OpenMP reads when torch is imported, where the user has not set them.

    A team of threads has as many threads as cores may be used. Its threads sleep at once where there is no work: a
    thread that spins takes the core from the thread that it waits for, where other processes are busy.
    """
    variables.setdefault("OMP_WAIT_POLICY", "passive")
    # A thread counts the cores of its affinity by itself, and knows nothing of quotas.
    variables.setdefault("OMP_NUM_THREADS", str(usable_cores()))


def usable_cores(groups: Path = CGROUPS, own: Path = OWN) -> int:
    """Return the number of cores that the affinity and the CPU quotas of the control groups allow, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        for line in own.read_text(encoding="utf-8").splitlines():
            number, _, path = line.split(":", 2)
            if number == "0":  # version 2: the quota of each group above holds, too
                place = groups / path.lstrip("/")
                for group in (place, *place.parents):
                    if group.is_relative_to(groups):
                        cores = min(cores, _quota(group / "cpu.max"))
    return max(1, cores)


def _quota(file: Path) -> int:
    """Return the cores of a group's quota, `MICROSECONDS PERIOD` or `max PERIOD`; a part of a core counts as none."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = file.read_text(encoding="ascii").split()
        if quota != "max":
            return max(1, int(quota) // int(period))
    return 2**31
