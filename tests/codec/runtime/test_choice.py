# SPDX-License-Identifier: Apache-2.0
"""Ways to run a network -> the fastest that is exact enough, once for each machine and network."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from latentwire_codec.load import load_autoencoder
from latentwire_codec.runtime import choice
from latentwire_codec.runtime.autoencoder import Autoencoder
from latentwire_codec.runtime.choice import REFERENCE, Way, choose, measure
from latentwire_codec.runtime.posterior import Posterior

BFLOAT16 = Way("bfloat16", rewrites=True)
WAYS = (REFERENCE, Way("float32", rewrites=False), BFLOAT16, Way("bfloat16", rewrites=False))


class Clock:
    """A clock that each run of a network advances by the time that it is said to take."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """Stands for an autoencoder: its latents are a part of its images, with an error, after some seconds."""

    def __init__(self, clock: Clock, seconds: float, error: float = 0.0) -> None:
        self.clock, self.seconds, self.error, self.runs = clock, seconds, error, 0

    def encode(self, images: Tensor) -> Posterior:
        self.runs += 1
        self.clock.now += self.seconds
        return Posterior(images[:, :, ::8, ::8], None)

    def decode(self, latents: Tensor) -> Tensor:
        return latents + self.error


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "perf_counter", made)
    monkeypatch.setattr(choice, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(choice, "_remembered", {})
    monkeypatch.setattr(choice, "WAYS", WAYS)
    monkeypatch.setattr(choice, "_is_emulated", lambda way: False)
    return made


def builder(fakes: dict[Way, Fake], built: list[Way]) -> Callable[[Way], Autoencoder]:
    def build(way: Way) -> Autoencoder:
        built.append(way)
        return cast(Autoencoder, fakes[way])

    return build


def test_the_fastest_way_that_is_exact_enough_is_chosen_and_logged(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    fakes = {way: Fake(clock, 1.0) for way in WAYS}
    fakes[BFLOAT16] = Fake(clock, 0.5, error=1e-3)
    with caplog.at_level(logging.INFO, "latentwire"):
        chosen = choose("model", "digest", builder(fakes, []), rewrites=True)
    assert chosen is cast(Any, fakes[BFLOAT16])
    assert [record.message for record in caplog.records if "bfloat16 is chosen of" in record.message]


@pytest.mark.parametrize("error", [0.1, float("nan")])
def test_a_way_that_is_too_far_from_float32_is_never_chosen(clock: Clock, error: float) -> None:
    fakes = {way: Fake(clock, 1.0 if way.dtype == "float32" else 0.1, error if way != REFERENCE else 0) for way in WAYS}
    assert choose("model", "digest", builder(fakes, []), rewrites=True) is cast(Any, fakes[REFERENCE])


def test_a_way_that_is_much_slower_at_first_runs_once_only(clock: Clock) -> None:
    fakes = {REFERENCE: Fake(clock, 0.1), BFLOAT16: Fake(clock, 1.0)}
    measure(cast(Any, fakes))
    assert (fakes[BFLOAT16].runs, fakes[REFERENCE].runs) == (1, 1 + choice.ROUNDS)


def test_a_second_load_builds_only_what_the_first_one_chose(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = {way: Fake(clock, 0.5 if way == BFLOAT16 else 1.0) for way in WAYS}
    built: list[Way] = []
    for forget in (False, True):  # from the process, and from the disk
        choose("model", "digest", builder(fakes, built), rewrites=True)
        if forget:
            monkeypatch.setattr(choice, "_remembered", {})
    choose("model", "digest", builder(fakes, built), rewrites=True)
    assert built == [*WAYS, BFLOAT16, BFLOAT16]
    choose("model", "another digest", builder(fakes, built), rewrites=True)
    assert built[-len(WAYS) :] == [*WAYS]


@pytest.mark.parametrize("content", ["", "[]", '{"dtype": "float64", "rewrites": true}', '{"dtype": 1}', "\x00"])
def test_a_damaged_choice_is_measured_again(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    fakes = {way: Fake(clock, 1.0) for way in WAYS}
    choose("model", "digest", builder(fakes, []), rewrites=True)
    (kept,) = tmp_path.rglob("*.json")
    kept.write_text(content)
    monkeypatch.setattr(choice, "_remembered", {})
    built: list[Way] = []
    choose("model", "digest", builder(fakes, built), rewrites=True)
    assert built == [*WAYS]


def test_a_cache_that_cannot_be_written_to_leaves_the_choice_to_the_process(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(choice, "user_cache_path", lambda name: tmp_path / "file" / name)
    fakes = {way: Fake(clock, 0.5 if way == BFLOAT16 else 1.0) for way in WAYS}
    built: list[Way] = []
    for _ in range(2):
        assert choose("model", "digest", builder(fakes, built), rewrites=True) is cast(Any, fakes[BFLOAT16])
    assert built == [*WAYS, BFLOAT16]


def test_without_rewrites_no_way_with_rewrites_is_offered(clock: Clock) -> None:
    built: list[Way] = []
    choose("model", "digest", builder({way: Fake(clock, 1.0) for way in WAYS}, built), rewrites=False)
    assert built == [way for way in WAYS if not way.rewrites]


def test_a_measured_load_gives_what_the_chosen_dtype_gives(tiny_kl_folder: Path, clock: Clock) -> None:
    source, options = str(tiny_kl_folder), {"device": "cpu", "scale": 1.0}
    measured = load_autoencoder(source, dtype="measured", **options)  # type: ignore[arg-type]
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    ways = [load_autoencoder(source, dtype=way.dtype, rewrites=way.rewrites, **options) for way in WAYS]  # type: ignore[arg-type]
    mean = measured.encode(image).mean
    assert any(torch.equal(mean, way.encode(image).mean) for way in ways)
