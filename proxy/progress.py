"""A bar on standard error for work that takes more than a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["progress"]


@contextmanager
def progress(steps: int, unit: str) -> Iterator[Callable[[], None]]:
    """Show a bar where standard error is a terminal; yield what moves it on by one."""
    console = Console(stderr=True)
    columns = TextColumn(f"{{task.completed}}/{{task.total}} {unit}"), BarColumn()
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=steps)
        yield lambda: bar.advance(task)
