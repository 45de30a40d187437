# SPDX-License-Identifier: Apache-2.0
"""Tests of loader workers, in a process that forks as a training run does: without the threads of other tests."""

import subprocess
import sys
from pathlib import Path


def test_loader_workers_in_a_process_of_their_own() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "own_process", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, str(Path(__file__).parent)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout.splitlines()[-1]
