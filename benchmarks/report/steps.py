# SPDX-License-Identifier: Apache-2.0
"""The steps of a long run, as they begin -> a bar on a terminal, a line each elsewhere; on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Step = Callable[[str], None]
"""Told what begins now."""


@contextmanager
def steps(total: int) -> Iterator[Step]:
    """Show how far a run of so many steps is; a run may end with fewer."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        begun = 0

        def step(name: str) -> None:
            nonlocal begun
            progress.update(task, description=name, completed=begun)
            begun += 1
            if not console.is_terminal:
                console.print(f"{begun}/{total} {name}", markup=False, highlight=False, soft_wrap=True)

        yield step
