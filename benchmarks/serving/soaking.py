# SPDX-License-Identifier: Apache-2.0
"""Many mixed requests -> the server's resident memory after each of them.

Encode and decode, files and raw tensors of several sizes, in a seeded order. Some requests must be refused: memory that
a failed request keeps is easy to miss.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil

from benchmarks.serving.forms import FORMS, LATENTS, Form
from latentwire_client import Client, Latents, LatentwireError

SETTLING = 100
"""Requests before the first sample."""
ERROR_SHARE = 0.1


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and of its children."""
    process = psutil.Process(pid)
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:  # it has just ended
            continue
    return total


def soak(task: Mapping[str, Any]) -> dict[str, Any]:
    """Make mixed requests from several threads; sample the server's memory after each, behind the first SETTLING.

    Returns:
        `resident_bytes`, a list; `answers`, `refusals` and `surprises`, counts of each outcome by its name. A surprise
        is a valid request that was refused, or an invalid one that was answered.
    """
    random = Random(task["seed"])
    with Client(task["target"]) as client:
        right = [Form.of(name).call(client, Path(folder)) for folder in task["folders"] for name in sorted(FORMS)]
        wrong = wrong_calls(client, Path(task["folders"][0]))
        outcomes: dict[str, Counter[str]] = {"answers": Counter(), "refusals": Counter(), "surprises": Counter()}
        samples: list[int] = []

        def make(index: int, is_wrong: bool, call: Callable[[], object]) -> None:
            try:
                call()
            except LatentwireError as error:
                outcomes["refusals" if is_wrong else "surprises"][type(error).__name__] += 1
            else:
                outcomes["surprises" if is_wrong else "answers"]["answer"] += 1
            if index >= SETTLING:
                samples.append(resident_bytes(task["pid"]))

        with ThreadPoolExecutor(task["threads"]) as pool:
            made = []
            for index in range(task["count"]):
                is_wrong = random.random() < ERROR_SHARE
                made.append(pool.submit(make, index, is_wrong, random.choice(wrong if is_wrong else right)))
            for each in made:
                each.result()
    return {"resident_bytes": samples, **{name: dict(counted) for name, counted in outcomes.items()}}


def wrong_calls(client: Client, folder: Path) -> list[Callable[[], object]]:
    """Return calls to refuse: a damaged file, an odd size, latents of another space, an unknown model."""
    latents = Latents.load(folder / LATENTS)
    elsewhere = replace(latents, latent_space="elsewhere", weights_digest="")
    odd = np.zeros((9, 11, 3), np.uint8)
    return [
        lambda: client.encode(b"no image"),
        lambda: client.encode(odd),
        lambda: client.decode_array(elsewhere),
        lambda: client.encode(odd, model="nowhere"),
    ]
