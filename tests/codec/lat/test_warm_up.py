# SPDX-License-Identifier: Apache-2.0
"""What is compiled is kept where it can be, is the same in many processes at once, and is complete after a warm-up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.codec.lat.test_golden import INTEGERS

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
import numpy as np
from numba.core.dispatcher import Dispatcher
from latentwire_codec.lat.payload import compress_latents, decompress_latents, warm_up

def compiled():
    modules = [module for name, module in sys.modules.items() if name.startswith("latentwire_codec")]
    found = {each for module in modules for each in vars(module).values() if isinstance(each, Dispatcher)}
    return {each: list(each.signatures) for each in found}

warm_up()
before = compiled()
assert sum(map(len, before.values())) > 5
latents = np.random.default_rng(0).normal(size=(4, 9, 17)).astype(np.float32)
latents[0, 0, :3] = 1e5, -1e5, 40
for quality in ("cache", "low"):
    decompress_latents(compress_latents(latents, quality, units=(1.0,) * 4))
decompress_latents(compress_latents(latents.clip(-9, 9).astype(np.float16), "lossless"))
assert compiled() == before

from tests.codec.lat.lat_golden import CASES, digest, integers, read
print(digest([integers(read(name))[3] for name in CASES]))
"""


@pytest.mark.parametrize(("kept", "count"), [(True, 2), (False, 1)])
def test_processes_that_start_at_once_compile_the_same_and_all_of_it_before_the_first_payload(
    kept: bool, count: int, tmp_path: Path
) -> None:
    # The second way of numba's to find a folder never finds one.
    where = {"NUMBA_CACHE_DIR": str(tmp_path)} if kept else {"NUMBA_CACHE_LOCATOR_CLASSES": "_IPythonCacheLocator"}
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=os.environ | where, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    assert [each.communicate()[0].strip() for each in processes] == [INTEGERS] * count
    assert any(tmp_path.rglob("*.nbi")) is kept
