# SPDX-License-Identifier: Apache-2.0
"""`latentwire train`: images -> a folder with a trained VAE.

The options stand for a few keys of the recipe; `--set` reaches every key.
"""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from latentwire_cli.display import TrainingDisplay
from latentwire_cli.exit_status import SIGNALLED, Refusal
from latentwire_cli.local import require
from latentwire_cli.options import NO_VALUE, option, parameter, with_parameters
from latentwire_cli.report import print_line

if TYPE_CHECKING:
    from latentwire_train.record.observer import Result

DEFAULT_RECIPE = "latent-vae"
RECIPE, BUDGET, MACHINE = "The network", "The budget", "The machine"

# fmt: off
KEYS: tuple[tuple[str, str, Any, str, str | None, str], ...] = (
    ("kind", "model.kind", Literal["vae", "ae"], RECIPE, None, "vae, or ae: the plain autoencoder, to compare."),
    ("init", "model.init", str, RECIPE, "SOURCE", "Weights to start from: any source that `serve --model` takes."),
    ("size", "data.size", int, RECIPE, "PX", "Side of a training sample, pixels."),
    ("steps", "schedule.steps", int, BUDGET, "N", "The budget in steps."),
    ("minutes", "schedule.minutes", float, BUDGET, "M", "The budget in minutes instead."),
    ("batch", "schedule.batch_size", int, BUDGET, "N", "Number of samples of a step."),
    ("learning_rate", "schedule.learning_rate", float, BUDGET, "X", "The highest learning rate."),
    ("seed", "schedule.seed", int, BUDGET, "N", "Seed of weights, samples and noise."),
    ("device", "run.device", str, MACHINE, "NAME", "cpu, cuda, cuda:1 ...; auto takes a GPU if there is one."),
)
# fmt: on
"""Option, key of the recipe, type, heading in the help, metavar, help."""
SET = option(
    "--set",
    text="Any key of a recipe, such as `schedule.ema_decay=0.999`; repeatable; goes over other options.",
    panel=BUDGET,
    metavar="SECTION.KEY=VALUE",
)
OPTIONS = [
    parameter(name, Annotated[kind | None, option(text=text, panel=panel, metavar=metavar)])
    for name, _, kind, panel, metavar, text in KEYS
]
OPTIONS.insert(-1, parameter("settings", Annotated[list[str] | None, SET]))


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    return with_parameters(command, command, OPTIONS, instead_of="given")


def _list_recipes(wanted: bool) -> None:
    """Print the bundled recipes, each with its first comment."""
    if not wanted:
        return
    require("train")
    from latentwire_train.recipes import RECIPES, recipe_names

    for name in recipe_names():
        lines = (RECIPES / f"{name}.toml").read_text(encoding="utf-8").splitlines()
        comments = [line.lstrip("# ") for line in lines if line.startswith("#") and "SPDX" not in line]
        print_line(": ".join([name, *comments[:1]]))
    raise typer.Exit


@_with_options
def train(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder of images, nested to any depth, or one in CelebA's layout or with IDX files, as of MNIST; "
            "WebDataset shards, a dataset of Hugging Face, or a list of files; or the URL of one of these.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, option("--output", "-o", text="The folder of the run, new or interrupted.", metavar="RUN")],
    recipe: Annotated[
        str,
        option(text="A bundled recipe, or a TOML file.", default=DEFAULT_RECIPE, panel=RECIPE, metavar="NAME|FILE"),
    ] = DEFAULT_RECIPE,
    recipes: Annotated[
        bool,
        option(
            "--recipes",
            text="List the bundled recipes and exit.",
            panel=RECIPE,
            metavar=NO_VALUE,
            is_eager=True,
            callback=_list_recipes,
        ),
    ] = False,
    **given: Any,
) -> None:
    """Train a VAE on images; the recipe has the values of the options that are not given.

    RUN/best holds the weights that measured best on held-out images, RUN/last the latest weights.
    The same command again goes on where it was stopped.
    On several GPUs: accelerate launch --no_python latentwire train ...
    """
    if given["steps"] is not None and given["minutes"] is not None:
        raise typer.BadParameter("the budget is in --steps or in --minutes, not in both", param_hint="--minutes")
    require("train")
    from latentwire_core.errors import CodecError
    from latentwire_train.config import ConfigError
    from latentwire_train.loop import train as run
    from latentwire_train.recipes import load_config

    # JSON's numbers and strings are TOML's.
    overrides = [f"{key}={json.dumps(given[name])}" for name, key, *_ in KEYS if given[name] is not None]
    try:
        config = load_config(recipe, [*overrides, *(given["settings"] or ())])
    except ConfigError as error:
        raise Refusal(str(error)) from error
    with TrainingDisplay(data) as display:
        try:
            result = run(config, data, output, display)
        except CodecError as error:
            if display.plan is None:
                raise Refusal(str(error)) from error
            raise
    if display.result is not None:
        _sum_up(display.result)
    if result.stopped:
        raise typer.Exit(SIGNALLED + result.stopped)


def _sum_up(result: "Result") -> None:
    """Print the result, and how to use it."""
    if result.stopped:
        print(f"stopped at step {result.steps:,}; the same command goes on from there", file=sys.stderr)
        return
    psnr = result.best.get("held_out/psnr")
    quality = "" if psnr is None else f"; held-out PSNR {psnr:.2f} dB"
    print_line(f"trained {result.steps:,} steps in {result.minutes:.1f} minutes{quality}")
    print_line(f"best and last weights, curves and pictures are in {result.folder}")
    print_line(f"serve them: latentwire serve --model {shlex.quote(str(result.folder / 'best'))}")
