"""Tables of figures: whole in every width, each part with its names."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from rich.table import Column

from samplewise.proxy.replay.tables import show_table

HEADINGS = tuple(f"figure {i}" for i in range(12))
ROWS = [(name, *(f"{name}-{i:07d}" for i in range(12))) for name in ("one", "[b]two", "three")]


def shown(width: int, terminal: bool = True, title: str | None = None) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
    show_table(console, Column("Policy", overflow="fold"), HEADINGS, ROWS, title)
    return file.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120, 400])
@pytest.mark.parametrize("terminal", [True, False])
def test_every_figure_is_shown_once_and_no_line_is_too_long(width: int, terminal: bool) -> None:
    text = shown(width, terminal)
    for heading in HEADINGS:
        assert len(re.findall(rf"{heading}\b", text)) == 1
    for row in ROWS:
        for figure in row[1:]:
            assert text.count(figure) == 1
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_every_part_begins_with_the_names_and_only_a_narrow_console_has_several() -> None:
    assert shown(400, title="all of it").count("Policy") == 1
    narrow = shown(80, title="all of it")
    parts = narrow.count("Policy")
    assert parts > 1
    assert sum(line.split()[:1] == ["[b]two"] for line in narrow.splitlines()) == parts
    assert narrow.count("all of it") == 1
