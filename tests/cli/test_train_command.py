# SPDX-License-Identifier: Apache-2.0
"""`latentwire train` with a run that only tells what happens: what it asks for, what it shows, how it ends."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from latentwire_cli import local, main
from latentwire_cli.commands.train import DEFAULT_RECIPE
from latentwire_cli.display import LINE_EVERY_S, NAMED_PROBLEMS, TrainingDisplay
from latentwire_core.extras import install_hint
from latentwire_train.config import TrainingConfig
from latentwire_train.data.folder import DataError, Problem
from latentwire_train.recipes import load_config, recipe_names
from latentwire_train.record.observer import Observer, Plan, Result

FIGURES = {
    "images_per_s": 83.13,
    "learning_rate": 4.1e-4,
    "train/l1": 0.0403,
    "train/mse": 0.00213,
    "train/kl": 512.3,
    "train/psnr": 27.31,
    "train/total": 0.0512,
}

Call = tuple[TrainingConfig, Path, Path]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single process."""
    monkeypatch.delenv("RANK", raising=False)


def plan(folder: Path, config: TrainingConfig | None = None, **changes: object) -> Plan:
    settings: dict[str, object] = {"problems": (), "first_step": 0, "steps": 20_000, "minutes": 0.0, "best": {}}
    return Plan(
        folder=folder,
        config=config or load_config(DEFAULT_RECIPE),
        images=2_139,
        held_out=43,
        parameters=7_083_480,
        device="cpu",
        **{**settings, **changes},  # type: ignore[arg-type]
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Call]]:
    """Replace the loop by one that takes two steps; give what it was called with."""

    def install(
        *, first_step: int = 0, stopped: bool = False, error: Exception | None = None, **planned: object
    ) -> list[Call]:
        calls: list[Call] = []

        def train(config: TrainingConfig, data: Path, folder: Path, observer: Observer) -> Result:
            calls.append((config, data, folder))
            if isinstance(error, DataError):
                raise error
            observer.started(plan(folder, config, first_step=first_step, **planned))
            observer.stepped(first_step + 10, 0.5, FIGURES)
            observer.problem(Problem("cut.jpg", "is truncated"))
            if error is not None:
                raise error
            observer.evaluated(first_step + 10, {"held_out/psnr": 26.92, "held_out/loss": 0.05}, True)
            observer.evaluated(first_step + 20, {"held_out/psnr": 26.5, "held_out/loss": 0.06}, False)
            observer.saved(first_step + 20)
            result = Result(folder, first_step + 20, 48.25, {"held_out/psnr": 26.92}, stopped)
            observer.ended(result)
            return result

        monkeypatch.setattr("latentwire_train.loop.train", train)
        return calls

    return install


# ---------------------------------------------------------------------------------------------------------------------
# What it asks for
# ---------------------------------------------------------------------------------------------------------------------


def test_options_are_keys_of_the_recipe(run: Callable[..., list[Call]], tmp_path: Path) -> None:
    calls = run()
    flags = "--kind ae --steps 50 --size 64 --batch 4 --learning-rate 2e-3 --seed 9 --device cpu --init runs/a1/best"
    assert main(["train", "photos", "-o", str(tmp_path), "--recipe", "autoencoder-kl", *flags.split()]) == 0
    ((config, data, folder),) = calls
    assert (data, folder) == (Path("photos"), tmp_path)
    assert (config.model.family, config.model.kind, config.model.init) == ("autoencoder-kl", "ae", "runs/a1/best")
    assert (config.schedule.steps, config.schedule.minutes, config.schedule.batch_size) == (50, 0, 4)
    assert (config.schedule.learning_rate, config.schedule.seed) == (2e-3, 9)
    assert (config.data.size, config.run.device) == (64, "cpu")


def test_without_options_it_is_the_recipe_as_it_stands(run: Callable[..., list[Call]], tmp_path: Path) -> None:
    calls = run()
    assert main(["train", "photos", "-o", str(tmp_path)]) == 0
    assert calls[0][0] == load_config(DEFAULT_RECIPE)


def test_set_reaches_every_key_and_has_the_last_word(run: Callable[..., list[Call]], tmp_path: Path) -> None:
    calls = run()
    settings = ["--set", "schedule.seed=5", "--set", "data.framing=cover", "--set", "run.compile=true"]
    assert main(["train", "photos", "-o", str(tmp_path), "--seed", "4", *settings]) == 0
    config = calls[0][0]
    assert (config.schedule.seed, config.data.framing, config.run.compile) == (5, "cover", True)


def test_a_budget_in_minutes_takes_the_place_of_the_steps(run: Callable[..., list[Call]], tmp_path: Path) -> None:
    calls = run()
    assert main(["train", "photos", "-o", str(tmp_path), "--minutes", "1.5"]) == 0
    assert (calls[0][0].schedule.steps, calls[0][0].schedule.minutes) == (0, 1.5)


def test_a_recipe_may_be_a_file(run: Callable[..., list[Call]], tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[model]\nfamily = "vector"\n[schedule]\nsteps = 7\n')
    calls = run()
    assert main(["train", "photos", "-o", str(tmp_path / "run"), "--recipe", str(recipe)]) == 0
    assert (calls[0][0].model.family, calls[0][0].schedule.steps) == ("vector", 7)


@pytest.mark.parametrize("init", ["1.5", "true", 'a "quoted" folder', "2024-01-01", "back\\slash"])
def test_what_to_start_from_is_text_whatever_it_looks_like(
    init: str, run: Callable[..., list[Call]], tmp_path: Path
) -> None:
    calls = run()
    assert main(["train", "photos", "-o", str(tmp_path), "--init", init]) == 0
    assert calls[0][0].model.init == init


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "5", "--minutes", "1"], "not in both"),
        (["--steps", "-1"], "schedule.steps is -1"),
        (["--recipe", "nothing"], "no recipe 'nothing'"),
        (["--set", "schedule.stepps=1"], "schedule.stepps is not known"),
        (["--set", "steps=1"], "section.key=value"),
        (["--size", "4"], "data.size is 4; it must be 8 to"),
        (["--kind", "gan"], "'gan'"),
    ],
)
def test_wrong_options_are_one_line_and_nothing_begins(
    arguments: list[str],
    words: str,
    run: Callable[..., list[Call]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = run()
    assert main(["train", "photos", "-o", str(tmp_path / "run"), *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), calls) == ("", 1, [])
    assert err.startswith("error: ")
    assert words in err
    assert not (tmp_path / "run").exists()


def test_the_bundled_recipes_are_listed_each_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == recipe_names()
    assert all(len(line.partition(": ")[2]) > 20 for line in lines)
    assert DEFAULT_RECIPE in recipe_names()


@pytest.mark.parametrize("arguments", [["train", "photos", "-o", "run"], ["train", "--recipes"]])
def test_the_missing_extra_is_named(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: name not in ("tensorboard",) or None)
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: this needs the train extra: {install_hint('train')}\n"


# ---------------------------------------------------------------------------------------------------------------------
# How it ends
# ---------------------------------------------------------------------------------------------------------------------


def test_at_the_end_it_says_how_good_it_is_where_it_lies_and_how_to_serve_it(
    run: Callable[..., list[Call]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    folder = tmp_path / "my run"
    assert main(["train", "photos", "-o", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "trained 20 steps in 48.2 minutes; held-out PSNR 26.92 dB",
        f"best and last weights, curves and pictures are in {folder}",
        f"serve them: latentwire serve --model '{folder / 'best'}'",
    ]


def test_an_interrupted_run_says_how_to_go_on_and_ends_with_130(
    run: Callable[..., list[Call]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(stopped=True)
    assert main(["train", "photos", "-o", str(tmp_path)]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("stopped at step 20; the same command goes on from there\n")


def test_a_run_that_goes_on_says_from_where(
    run: Callable[..., list[Call]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(first_step=3_000)
    assert main(["train", "photos", "-o", str(tmp_path)]) == 0
    assert "going on from step 3,000\n" in capsys.readouterr().err


def test_a_run_that_has_nothing_left_to_do_says_so(
    run: Callable[..., list[Call]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(first_step=20_000)
    assert main(["train", "photos", "-o", str(tmp_path)]) == 0
    assert "all steps are done already\n" in capsys.readouterr().err


def test_data_that_cannot_be_used_is_a_run_that_has_not_begun(
    run: Callable[..., list[Call]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(error=DataError("photos is not a folder; give one that holds images"))
    assert main(["train", "photos", "-o", str(tmp_path)]) == 2
    assert capsys.readouterr() == ("", "error: photos is not a folder; give one that holds images\n")


def test_a_run_that_breaks_off_is_a_failure_in_one_line(
    run: Callable[..., list[Call]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(error=OSError(28, "No space left"))
    assert main(["train", "photos", "-o", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: No space left"


# ---------------------------------------------------------------------------------------------------------------------
# What it shows
# ---------------------------------------------------------------------------------------------------------------------


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
    display.started(plan(Path("run"), steps=0, minutes=48.0))
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
