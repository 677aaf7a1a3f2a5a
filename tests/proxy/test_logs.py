"""Logs: known fields only, and nothing that a client or an upstream said."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from samplewise.proxy.logs import only_known_fields, where

SOURCES = Path(__file__).parents[2] / "src"
SETUP = """
import logging, warnings, structlog
from samplewise.proxy.logs import catch_standard_logs, set_up_logs
set_up_logs("json", "{level}")
catch_standard_logs()
"""


async def logged(program: str, level: str = "info") -> list[dict[str, Any]]:
    """Run a program in a process of its own, for logging belongs to the whole process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SETUP.format(level=level) + program,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, out) == (0, b""), err
    return [json.loads(line) for line in err.splitlines()]


async def test_fields_that_nobody_allowed_are_dropped() -> None:
    [event] = await logged("structlog.get_logger().info('x', request_id='r', prompt='p', key='k')")
    assert event.keys() == {"event", "request_id", "level", "timestamp"}


def test_every_field_that_is_logged_is_allowed() -> None:
    dropped = [
        f"{path.name}:{call.lineno} {field.arg}"
        for folder in ("proxy", "verifiers")
        for path in (SOURCES.parent / folder).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("_log.")
        for field in call.keywords
        if field.arg and not only_known_fields(debug=True)(None, "", {field.arg: 1})
    ]
    assert dropped == []


@pytest.mark.parametrize(("level", "told"), [("info", False), ("debug", True)])
async def test_words_of_others_are_for_debugging(level: str, told: bool) -> None:
    [event] = await logged("structlog.get_logger().warning('x', detail='invalid: p')", level)
    assert ("detail" in event) is told


async def test_what_libraries_log_is_an_event_without_the_values_of_its_error() -> None:
    events = await logged(
        "try:\n"
        "    int('a secret')\n"
        "except ValueError:\n"
        "    logging.getLogger('lib').exception('it %s\\nand the rest', 'broke')\n"
        "logging.getLogger('lib').info('chatter')\n"
        "warnings.warn('odd', UserWarning, stacklevel=1)\n"
    )
    broke, odd = events
    assert (broke["event"], broke["logger"], broke["level"]) == ("it broke", "lib", "error")
    assert (broke["error"], broke["exception"]) == (
        "ValueError",
        "ValueError < <string>:7 <module>",
    )
    assert "odd" in odd["event"]


async def test_a_lost_standard_error_is_no_error() -> None:
    program = "import os\nos.close(2)\nstructlog.get_logger().error('x')\nlogging.error('y')"
    assert await logged(program) == []


def test_where_an_error_came_from_is_told_without_what_it_says() -> None:
    def read(text: str) -> int:
        return int(text)

    def answer() -> int:
        try:
            return read("a secret")
        except ValueError as error:
            raise RuntimeError("about a secret") from error

    with pytest.raises(RuntimeError) as caught:
        answer()
    told = where(caught.value)
    assert "secret" not in told
    inner, outer = told.split(" | from ")[::-1]
    assert inner.startswith("ValueError < ")
    assert [place.rpartition(" ")[2] for place in inner.split(" < ")[1:]] == ["read", "answer"]
    assert outer.startswith("RuntimeError < ")


def test_errors_that_caused_each_other_are_told_once() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert where(first) == "ValueError | from ValueError"
