# SPDX-License-Identifier: Apache-2.0
"""Files and folders on the command line -> the paths to read and to write, checked before the work begins."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from latentwire_cli.exit_status import Refusal
from latentwire_cli.options import option, switch
from latentwire_cli.report import print_note
from latentwire_core.folders import find_files

REMEDY = "--overwrite replaces it, or write to another folder with -o"


def _inputs(metavar: str, what: str) -> Any:
    return typer.Argument(metavar=metavar, help=f"{what}, or folders to look through for them.", show_default=False)


Images = Annotated[list[Path], _inputs("IMAGE", "Image files")]
LatentFiles = Annotated[list[Path], _inputs("FILE", "Files that `encode` wrote")]
PayloadFiles = Annotated[list[Path], _inputs("FILE.lat", "Files that `compress` wrote")]
Output = Annotated[Path, option("--output", "-o", text="The folder to write to; made if need be.", metavar="DIR")]
Picture = Annotated[
    Path, option("--output", "-o", text="The PNG file to write; folders are made if need be.", metavar="FILE.png")
]
Overwrite = Annotated[bool, switch("--overwrite", "Replace files that exist.")]
SkipExisting = Annotated[
    bool,
    switch(
        "--skip-existing",
        "Leave out files that were written before, to go on after a stop; the names are compared, not the images.",
    ),
]
Json = Annotated[bool, switch("--json", "Print one JSON document on standard output.")]


@dataclass(frozen=True)
class Job:
    """The path of a file to read, and the path of the file to write."""

    source: Path
    target: Path


def plan(
    inputs: Iterable[Path],
    suffixes: Collection[str],
    folder: Path,
    ending: str,
    overwrite: bool,
    difference: Callable[[Path], str] | None = None,
) -> list[Job]:
    """Map inputs to jobs: a file to FOLDER/NAME+ending, a file of an input folder to its place below FOLDER.

    The folder to write to is not looked through where it is inside an input. What of a folder is left out is printed on
    standard error with its number and reason.
    `difference` maps a file of an earlier run to its difference from the options of this run. Files without one are
    left out, and their number is printed on standard error.

    Raises:
        Refusal: two inputs would be written to one file; a file to write exists, differs or is a folder; an input
            folder holds no such file; the folder to write to is a file, or cannot be written to.
        OSError: a file of an earlier run cannot be read.
    """
    jobs: dict[Path, Job] = {}
    for path in inputs:
        for source, place in _found(path, suffixes, folder):
            job = Job(source, folder / place.with_name(place.stem + ending))
            other = jobs.setdefault(job.target, job)
            if os.path.realpath(other.source) != os.path.realpath(job.source):
                raise Refusal(
                    f"{other.source} and {job.source} would both be written to {job.target}; "
                    "rename one, or give them to two runs with folders of their own"
                )
    folders = [target for target in jobs if target.is_dir()]
    if folders:
        raise Refusal(f"{folders[0]} is a folder; remove it, or write to another folder with -o")
    if difference is not None:
        wanted = len(jobs)
        for target in [target for target in jobs if target.is_file()]:
            how = difference(target)
            if not how:
                del jobs[target]
            elif not overwrite:
                raise Refusal(f"{target} {how}; {REMEDY}")
        if len(jobs) < wanted:
            print_note(f"{wanted - len(jobs)} of {wanted} files were written to {folder} before; they are left out")
    taken = [] if overwrite else [job.target for job in jobs.values() if job.target.exists()]
    if taken:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise Refusal(f"{taken[0]}{more} exists; {REMEDY}")
    _check_writable(folder)
    return list(jobs.values())


def _check_writable(folder: Path) -> None:
    """Raise Refusal where a folder can be neither written to nor made; a command that fails later leaves no trace."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(nearest):
        raise Refusal(f"{nearest} is a file; -o names the folder to write to")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise Refusal(f"{nearest} cannot be written to; give another folder with -o")


def found(inputs: Iterable[Path], suffixes: Collection[str]) -> list[Path]:
    """Map files and folders to files, each once, without hidden ones; raise Refusal where a folder holds no file."""
    files = {os.path.realpath(source): source for path in inputs for source, _ in _found(path, suffixes, None)}
    return list(files.values())


def check_new(path: Path, suffix: str, overwrite: bool) -> Path:
    """Return the path of one file to write; raise Refusal for another suffix, or a file not to be replaced."""
    if path.suffix.lower() != suffix:
        raise Refusal(f"{path} does not end in {suffix}; give the name of a {suffix} file with -o")
    if path.is_dir():
        raise Refusal(f"{path} is a folder; give another name with -o")
    if path.exists() and not overwrite:
        raise Refusal(f"{path} exists; --overwrite replaces it, or give another name with -o")
    return path


def _found(path: Path, suffixes: Collection[str], output: Path | None) -> Iterator[tuple[Path, Path]]:
    """Yield each file of an input, and its place below the output; a missing file fails when it is read."""
    if not os.path.isdir(path):
        yield path, Path(path.name)
        return
    there = find_files(path, suffixes, output)
    said = [there.left_out, *(f"{path / folder}: {why}" for folder, why in there.unlistable.items())]
    if any(said):
        print_note(f"left out of {path}: {', '.join(filter(None, said))}")
    if not there.files:
        raise Refusal(f"{path} holds no file of the kinds looked for ({' '.join(sorted(suffixes))})")
    for file in there.files:
        yield path / file, file
