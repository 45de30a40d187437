# SPDX-License-Identifier: Apache-2.0
"""The steps of a long run, as they begin -> a progress bar on a terminal, a line each elsewhere; on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Step = Callable[[str], None]
"""Takes the name of the step that begins now."""


@contextmanager
def progress(console: Console) -> Iterator[Progress]:
    """Show progress bars on a terminal, and nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        yield bars


@contextmanager
def steps(total: int) -> Iterator[Step]:
    """Show how far a run of `total` steps is; a run may end with fewer."""
    console = Console(stderr=True)
    with progress(console) as bars:
        task = bars.add_task("", total=total)
        begun = 0

        def step(name: str) -> None:
            nonlocal begun
            bars.update(task, description=name, completed=begun)
            begun += 1
            if not console.is_terminal:
                console.print(f"{begun}/{total} {name}", markup=False, highlight=False, soft_wrap=True)

        yield step
