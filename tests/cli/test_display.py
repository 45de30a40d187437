# SPDX-License-Identifier: Apache-2.0
"""What the display of a training run shows: lines, and a live panel on a terminal."""

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from latentwire_cli.commands.train import DEFAULT_RECIPE
from latentwire_cli.display import LINE_EVERY_S, NAMED_PROBLEMS, TrainingDisplay
from latentwire_train.data.folder import Problem
from latentwire_train.recipes import load_config
from latentwire_train.record.observer import Plan

FIGURES = {
    "images_per_s": 83.13,
    "learning_rate": 4.1e-4,
    "train/l1": 0.0403,
    "train/mse": 0.00213,
    "train/kl": 512.3,
    "train/psnr": 27.31,
    "train/total": 0.0512,
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single process."""
    monkeypatch.delenv("RANK", raising=False)


def plan(folder: Path, *overrides: str, **changes: object) -> Plan:
    basic = Plan(
        folder=folder,
        config=load_config(DEFAULT_RECIPE, overrides),
        images=2_139,
        held_out=43,
        problems=(),
        parameters=7_083_480,
        device="cpu",
        first_step=0,
    )
    return dataclasses.replace(basic, **changes)  # type: ignore[arg-type]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def panel(display: TrainingDisplay, width: int = 80) -> str:
    """What is on the terminal below the lines that stay."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(display._render())
    return shown(console)


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=80)


def test_without_a_terminal_there_is_a_line_every_half_minute_and_one_for_each_measurement() -> None:
    console, clock = Console(file=io.StringIO(), width=80), Clock()
    with TrainingDisplay(Path("photos"), console, clock) as display:
        display.started(plan(Path("run")))
        for step in range(1, 101):
            clock.now_s += 1
            display.stepped(step, step / 20_000, FIGURES)
        display.evaluated(100, {"held_out/psnr": 26.92}, True)
        display.evaluated(200, {"held_out/psnr": 26.5}, False)
        display.saved(200)
    lines = shown(console).splitlines()
    assert lines[0] == ("latent-vae (vae), 7,083,480 parameters, on cpu: 20,000 steps, 2,139 images, 43 more held out")
    assert lines[1] == "step 1 of 20,000, 83.1 images/s, loss 0.0512, training PSNR 27.31 dB"
    assert lines[2].startswith(f"step {1 + LINE_EVERY_S:.0f} of 20,000, ")
    assert lines[2].endswith(", 5 h 32 min left")
    assert len(lines) == 1 + 4 + 2
    assert lines[-2:] == [
        "step 100: held-out PSNR 26.92 dB, the best so far",
        "step 200: held-out PSNR 26.50 dB, the best had 26.92 dB",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_the_panel_shows_place_speed_loss_quality_and_time_left(width: int) -> None:
    clock = Clock()
    display = TrainingDisplay(Path("photos"), terminal(), clock)
    assert "looking through photos" in panel(display)
    display.started(plan(Path("runs/one"), first_step=1_000, best={"held_out/psnr": 25.0}))
    assert "getting ready" in panel(display, width)
    assert "5.0%" in panel(display, width)
    display.stepped(1_010, 0.5, FIGURES)
    clock.now_s += 60
    display.stepped(1_020, 0.75, FIGURES)
    display.evaluated(1_020, {"held_out/psnr": 24.5}, False)
    display.saved(1_020)
    clock.now_s += 10
    text = panel(display, width)
    for words in (
        "latent-vae (vae), 7,083,480 parameters, on cpu", "75.0%", "50 s left", "1,020 of 20,000", "83.1 images/s",
        "learning rate 0.00041", "0.0512 · l1 0.0403 · mse 0.00213", "512.3 nats per image", "27.31 dB in training",
        "24.50 held out, step 1,020", "best 25.00", "step 1,020", "runs/one",
    ):  # fmt: skip
        assert words in text
    assert max(map(len, text.splitlines())) == width
    assert len(text.splitlines()) == 8


def test_a_budget_in_minutes_is_shown_in_minutes() -> None:
    display = TrainingDisplay(Path("photos"), terminal())
    display.started(plan(Path("run"), "schedule.minutes=48"))
    display.stepped(500, 0.25, FIGURES)
    assert "500 in 12.0 of 48 minutes" in panel(display)


def test_a_plain_autoencoder_has_no_kl() -> None:
    display = TrainingDisplay(Path("photos"), terminal())
    display.started(plan(Path("run")))
    display.stepped(10, 0.1, {name: value for name, value in FIGURES.items() if name != "train/kl"})
    assert "nats" not in panel(display)


def test_skipped_files_are_named_above_the_panel_and_a_name_is_no_markup() -> None:
    console = terminal()
    display = TrainingDisplay(Path("photos"), console)
    problems = tuple(Problem(f"{index}.jpg", "is 8x8") for index in range(NAMED_PROBLEMS + 3))
    display.started(plan(Path("run"), problems=problems))
    display.problem(Problem("[bold]a\x1b[2J", "is cut"))
    text = shown(console)
    assert text.count("is 8x8") == NAMED_PROBLEMS
    assert f"skipped 3 more; {Path('run') / 'skipped.txt'} names all" in text
    assert "[bold]a?[2J: is cut" in text
    display.stepped(10, 0.1, FIGURES)
    assert f"{NAMED_PROBLEMS + 4} files" in panel(display)


def test_of_several_processes_only_the_first_has_a_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    console = terminal()
    with TrainingDisplay(Path("photos"), console):
        pass
    assert shown(console) == ""


def test_a_terminal_is_left_as_it_was_when_a_run_breaks_off() -> None:
    def break_off() -> None:
        with TrainingDisplay(Path("photos"), console) as display:
            display.started(plan(Path("run")))
            raise OSError(28, "No space left on device")

    console = terminal()
    with pytest.raises(OSError, match="No space left"):
        break_off()
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert shown(console).count(hide) == shown(console).count(show) == 1


@pytest.mark.parametrize(("first_step", "words"), [(3_000, "going on from step 3,000"), (20_000, "all steps are done")])
def test_a_run_that_goes_on_says_from_where(first_step: int, words: str) -> None:
    console = Console(file=io.StringIO(), width=80)
    TrainingDisplay(Path("photos"), console).started(plan(Path("run"), first_step=first_step))
    assert shown(console).splitlines()[-1].startswith(words)
