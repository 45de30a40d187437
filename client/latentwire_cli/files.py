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

    The folder to write to is made, and is not looked through where it is inside an input. Hidden files are left out.
    `difference` maps a file of an earlier run to its difference from the options of this run. Files without one are
    left out, and their number is printed on standard error.

    Raises:
        Refusal: two inputs would be written to one file; a file to write exists, differs or is a folder; an input
            folder holds no such file; the folder to write to is a file.
        OSError: the folder cannot be made, or a file of an earlier run cannot be read.
    """
    jobs: dict[Path, Job] = {}
    for path in inputs:
        for source, place in _found(path, suffixes, folder):
            job = Job(source, folder / place.with_name(place.stem + ending))
            other = jobs.setdefault(job.target, job)
            if other.source.resolve() != job.source.resolve():
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
    if folder.exists() and not folder.is_dir():
        raise Refusal(f"{folder} is a file; -o names the folder to write to")
    folder.mkdir(parents=True, exist_ok=True)
    return list(jobs.values())


def found(inputs: Iterable[Path], suffixes: Collection[str]) -> list[Path]:
    """Map files and folders to files, each once, without hidden ones; raise Refusal where a folder holds no file."""
    files = {source.resolve(): source for path in inputs for source, _ in _found(path, suffixes, None)}
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
    if not path.is_dir():
        yield path, Path(path.name)
        return
    avoided = None if output is None else output.resolve()
    empty = True
    for here, folders, names in os.walk(path):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and Path(here, name).resolve() != avoided
        )
        for name in sorted(names):
            if Path(name).suffix.lower() in suffixes and not name.startswith("."):
                empty = False
                yield Path(here, name), Path(here, name).relative_to(path)
    if empty:
        raise Refusal(f"{path} holds no file of the kinds looked for ({' '.join(sorted(suffixes))})")
