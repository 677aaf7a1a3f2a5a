"""Files of recorded samples: strict to read, whole lines to write."""

from __future__ import annotations

import gzip
import resource
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from samplewise.policies.replay.records import (
    Header,
    Problem,
    RecordedPrice,
    RecordedSample,
    RecordedVerdict,
)
from samplewise.proxy.replay.files import RecordingError, Writer, load, read
from samplewise.verifiers.base import Ended, LogprobSummary, Status
from tests.replay.made import problems, voted

HEADER = '{"samplewise":"samples","version":1}\n'
FULL = Problem(
    id="p",
    prompt="2 + 2?",
    prompt_tokens=9,
    reference="4",
    data={"level": 1},
    samples=(
        RecordedSample(
            text="It is 4",
            answer="4",
            correct=True,
            tokens=5,
            seconds=0.5,
            ended=Ended.STOP_STRING,
            verdicts={"rm": RecordedVerdict(Status.PASS, 0.9, (0.5, 1.0))},
            logprobs=LogprobSummary(5, -0.2, -1.5),
            backend="own",
            variant="short",
            prompt_tokens=4,
        ),
        RecordedSample(text="so 4", source="continue", parents=(0,)),
    ),
)


def write(path: Path, text: str) -> Path:
    """Write a file and return its name."""
    path.write_text(text, "utf-8")
    return path


def test_everything_that_was_written_is_read_again(tmp_path: Path) -> None:
    header = Header(source="a test", prices={"own": RecordedPrice(0.1, 0.4)})
    with Writer(tmp_path / "s.jsonl", header) as writer:
        writer.add(FULL)
    found = load(tmp_path / "s.jsonl")
    assert (found.header, found.problems) == (header, (FULL,))
    (tmp_path / "s.jsonl.gz").write_bytes(gzip.compress((tmp_path / "s.jsonl").read_bytes()))
    assert load(tmp_path / "s.jsonl.gz") == found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(problems(3))
def test_any_problem_survives_the_file(tmp_path: Path, problem: Problem) -> None:
    line = msgspec.json.encode(problem).decode()
    path = write(tmp_path / "s.jsonl", HEADER + line + "\n")
    assert load(path).problems == (problem,)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", r"s\.jsonl:1: the first line must be a header"),
        ('{"id":"p","samples":[]}\n', r"s\.jsonl:1: the first line must be a header"),
        ('{"samplewise":"samples","version":2}\n', r"s\.jsonl:1: .*version"),
        (HEADER + '{"id":"p","samples":[]}\nnonsense\n', r"s\.jsonl:3: .*malformed"),
        (HEADER + "\n", r"s\.jsonl:2: "),
        (HEADER + '{"id":"p","samples":[{"answr":"4"}]}\n', r"s\.jsonl:2: .*answr.*samples\[0\]"),
        (HEADER + '{"id":"p","samples":[{"tokens":-1}]}\n', r"s\.jsonl:2: .*>= 0.*\.tokens"),
        (HEADER + '{"id":"p","samples":[{"tokens":"7"}]}\n', r"s\.jsonl:2: .*int.*\.tokens"),
        (HEADER + '{"id":"p","samples":[{"ended":"done"}]}\n', r"s\.jsonl:2: .*'done'.*\.ended"),
        (HEADER + '{"id":"p","samples":[{"source":"revise"}]}\n', r"s\.jsonl:2: .*needs parents"),
        (HEADER + '{"id":"p","samples":[{"source":"revise","parents":[0]}]}\n', r":2: .*earlier"),
        (HEADER + '{"id":"p","samples":[]}\n' * 2, r"s\.jsonl:3: problem 'p' was given on line 2"),
        (HEADER + '{"id":"p","samples":[]}', r"s\.jsonl:2: the last line is cut off"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_told_by_its_number(tmp_path: Path, lines: str, said: str) -> None:
    with pytest.raises(RecordingError, match=said):
        load(write(tmp_path / "s.jsonl", lines))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"none\.jsonl: cannot be read: No such file"):
        load(tmp_path / "none.jsonl")


def test_problems_are_read_one_by_one(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", HEADER + '{"id":"p","samples":[]}\n' + "broken\n")
    _, found = read(path)
    assert next(found).id == "p"
    with pytest.raises(RecordingError, match=":3: "):
        next(found)


def test_a_line_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with Writer(path, Header()) as writer:
        writer.add(voted("ab", id_="1"))
        writer.add(voted("ab", id_="2"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with Writer(path, Header()) as writer:
        assert set(writer.done) == {"1"}
        writer.add(voted("ab", id_="2"))
        with pytest.raises(RecordingError, match="has problem '2' already"):
            writer.add(voted("ab", id_="2"))
    assert path.read_bytes() == whole


def test_a_full_disk_is_said_and_the_file_goes_on_later(tmp_path: Path) -> None:
    path, first, second = tmp_path / "s.jsonl", voted("ab", id_="1"), voted("ab", id_="2")
    with Writer(path, Header()) as writer:
        writer.add(first)
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, room[1]))
    try:
        said = r"s\.jsonl: cannot be written: File too large"
        with pytest.raises(RecordingError, match=said), Writer(path, Header()) as writer:
            writer.add(second)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
    with Writer(path, Header()) as writer:
        writer.add(second)
    assert load(path).problems == (first, second)


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "notes.txt", "mine\n")
    with pytest.raises(RecordingError, match="exists and is no file of samples"):
        Writer(path, Header()).__enter__()
    assert path.read_text() == "mine\n"
