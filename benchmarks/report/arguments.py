# SPDX-License-Identifier: Apache-2.0
"""The name of a benchmark -> a parser with the options that benchmarks share; parsed options -> models."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from benchmarks.report.model import Source
from benchmarks.report.scores import NAMES

OUTPUT = Path("benchmark-output")
DTYPES = "auto, float32, bfloat16 or float16"


class _Help(argparse.RawDescriptionHelpFormatter):
    """Names the default of each option behind its help."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if not default or default == argparse.SUPPRESS:
            return action.help
        return f"{action.help} (default {listed(default) if isinstance(default, list | tuple) else default})"


def positive(text: str) -> int:
    """Map the text of an option to an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"it is {number}; it must be at least 1")
    return number


def listed(values: Iterable[object]) -> str:
    """Return values as they are typed on a command line."""
    return " ".join(map(str, values))


def parser(benchmark: str, description: str, folder: str = "NAME") -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks; the output goes to `folder` unless told otherwise."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark}", description=description, formatter_class=_Help
    )
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    made.add_argument("-o", "--out", type=Path, help=f"folder for the report (default {OUTPUT}/{folder})")
    return made


def folder_parser(benchmark: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks of a folder of images."""
    made = parser(benchmark, description, "NAME-FOLDER")
    made.add_argument("folder", type=Path, help="images, also in folders below it")
    made.add_argument("--model", nargs="+", default=["f8c4"], metavar="SOURCE", help="what `serve --model` takes")
    made.add_argument("--dtype", default="auto", help=DTYPES)
    made.add_argument("--workers", type=positive, default=1, help="processes; each loads the models")
    return made


def add_metrics(made: argparse.ArgumentParser) -> None:
    """Add the options that choose metrics."""
    made.add_argument("--metrics", nargs="+", choices=NAMES, default=list(NAMES), help="those that this machine has")
    made.add_argument("--lpips-weights", type=Path, metavar="FOLDER", help="with the two weight files of LPIPS")


def sources(made: argparse.ArgumentParser, options: argparse.Namespace) -> list[Source]:
    """Return the models that were asked for; end with a message where two of them have one name."""
    found = [Source(source, options.device, options.dtype) for source in options.model]
    if len({each.name for each in found}) < len(found):
        made.error(f"two models have one name: {', '.join(each.name for each in found)}; rename a folder")
    return found
