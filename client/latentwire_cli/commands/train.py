# SPDX-License-Identifier: Apache-2.0
"""`latentwire train`: a folder of images -> a folder with a trained VAE.

The options stand for a few keys of the recipe; `--set` reaches every key.
"""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from latentwire_cli.display import TrainingDisplay
from latentwire_cli.exit_status import Refusal
from latentwire_cli.local import require
from latentwire_cli.options import NO_VALUE, option
from latentwire_cli.report import print_line

if TYPE_CHECKING:
    from latentwire_train.record.observer import Result

DEFAULT_RECIPE = "latent-vae"
INTERRUPTED = 130
RECIPE, BUDGET, MACHINE = "The network", "The budget", "The machine"


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


def train(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder of images, nested to any depth, or one in CelebA's layout or with IDX files, as of MNIST.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        option("--output", "-o", text="The folder of the run, new or interrupted.", metavar="RUN"),
    ],
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
    kind: Annotated[
        Literal["vae", "ae"] | None,
        option(text="vae, or ae: the plain autoencoder, to compare.", panel=RECIPE),
    ] = None,
    init: Annotated[
        str | None,
        option(
            text="Weights to start from: any source that `serve --model` takes.", panel=RECIPE,
            metavar="SOURCE",
        ),
    ] = None,
    size: Annotated[
        int | None,
        option(text="Side of a training sample, pixels.", panel=RECIPE, metavar="PX"),
    ] = None,
    steps: Annotated[
        int | None, option(text="The budget in steps.", panel=BUDGET, metavar="N")
    ] = None,
    minutes: Annotated[
        float | None,
        option(text="The budget in minutes instead.", panel=BUDGET, metavar="M"),
    ] = None,
    batch: Annotated[
        int | None, option(text="Number of samples of a step.", panel=BUDGET, metavar="N")
    ] = None,
    learning_rate: Annotated[
        float | None, option(text="The highest learning rate.", panel=BUDGET, metavar="X")
    ] = None,
    seed: Annotated[
        int | None,
        option(text="Seed of weights, samples and noise.", panel=BUDGET, metavar="N"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        option(
            "--set",
            text="Any key of a recipe, such as `schedule.ema_decay=0.999`; repeatable; goes over other options.",
            panel=BUDGET,
            metavar="SECTION.KEY=VALUE",
        ),
    ] = None,
    device: Annotated[
        str | None,
        option(text="cpu, cuda, cuda:1 ...; auto takes a GPU if there is one.", panel=MACHINE,
               metavar="NAME"),
    ] = None,
) -> None:  # fmt: skip
    """Train a VAE on images; the recipe has the values of the options that are not given.

    RUN/best holds the weights that measured best on held-out images, RUN/last the latest weights.
    The same command again goes on where it was stopped.
    On several GPUs: accelerate launch --no_python latentwire train ...
    """
    if steps is not None and minutes is not None:
        raise typer.BadParameter("the budget is in --steps or in --minutes, not in both", param_hint="--minutes")
    require("train")
    from latentwire_core.errors import CodecError
    from latentwire_train.config import ConfigError
    from latentwire_train.loop import train as run
    from latentwire_train.recipes import load_config

    given = {
        "model.kind": kind,
        "model.init": init,
        "data.size": size,
        "schedule.steps": steps,
        "schedule.minutes": minutes,
        "schedule.batch_size": batch,
        "schedule.learning_rate": learning_rate,
        "schedule.seed": seed,
        "run.device": device,
    }
    # JSON's numbers and strings are TOML's.
    overrides = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    try:
        config = load_config(recipe, [*overrides, *(settings or ())])
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
        raise typer.Exit(INTERRUPTED)


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
