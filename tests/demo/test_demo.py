"""`samplewise demo` as it is typed: a real run, and what can be wrong."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "samplewise", "demo", "--problems", "2"]


def left_running(folder: Path) -> list[str]:
    """Return the commands of the demo's servers that are still there; they know the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TMPDIR={folder}".encode() in entry.read_bytes():
                found.append((entry.parent / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), "COLUMNS": "120", "NO_COLOR": "1"}


def test_in_a_pipe_it_prints_the_table_and_leaves_nothing(tmp_path: Path) -> None:
    (temporary := tmp_path / "tmp").mkdir()
    figures = tmp_path / "f.json"
    done = subprocess.run(
        [*COMMAND, "--json", str(figures), "--out", str(tmp_path)],
        env=environment(temporary), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    for name in ("single, greedy", "majority_vote", "adaptive_vote", "best_of_n", "first_pass"):
        assert done.stdout.count(f"  {name}") == 2
    assert done.stdout.count("random moves, ") == 2
    found = json.loads(figures.read_text())
    assert len(found["rows"]) == 12
    assert all(row["failed"] == 0 and row["usd"] > 0 for row in found["rows"])
    assert found["billed_tokens"] <= found["decoded_tokens"]
    assert (tmp_path / "samplewise-coverage.png").read_bytes().startswith(b"\x89PNG")
    assert list(temporary.iterdir()) == []
    assert left_running(temporary) == []


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "--port", str(port)],
            env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"samplewise: cannot listen on 127.0.0.1:{port}: Address already")
    assert done.stderr.count("\n") == 1
    assert left_running(tmp_path) == []


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_costs_the_picture_alone(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    done = subprocess.run(
        [*COMMAND, "--out", str(missing)],
        env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "first_pass" in done.stdout
    path = missing / "samplewise-coverage.png"
    assert done.stderr == f"samplewise: cannot write {path}: No such file or directory\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running_however_it_is_stopped(
    tmp_path: Path, number: signal.Signals
) -> None:
    command = [*COMMAND[:-1], "100"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment(tmp_path), stderr=pipe, text=True) as process:
        for _ in range(600):
            if len(left_running(tmp_path)) == 3:
                break
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    if number is not signal.SIGKILL:
        assert process.returncode == 130
        assert said == "samplewise: stopped; nothing is left running\n"
        assert list(tmp_path.iterdir()) == []
    for _ in range(100):
        if not left_running(tmp_path):
            return
        time.sleep(0.1)
    raise AssertionError(left_running(tmp_path))


@pytest.mark.slow
def test_at_a_terminal_the_curl_line_works_while_it_asks(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [*COMMAND, "--out", str(tmp_path)]
    with subprocess.Popen(
        command, env=environment(tmp_path), stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        said = ""
        while "Keep serving?" not in said:
            said += os.read(ours, 65536).decode()
        url = re.search(r"curl (\S+)", said)
        body = re.search(r"-d '(.+?)'", said)
        assert url is not None
        assert body is not None
        with urllib.request.urlopen(url[1], body[1].encode(), timeout=20) as reply:
            answer = json.load(reply)
        assert answer["samplewise"]["route"] == "countdown"
        os.write(ours, b"n\n")
        assert process.wait(timeout=30) == 0
    os.close(ours)
