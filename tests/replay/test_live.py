"""Recording of live requests: what is written, for whom, and that it never costs an answer."""

from __future__ import annotations

import resource
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.replay.records import Problem
from samplewise.proxy.config import load_text
from samplewise.proxy.config_recording import RecordingSettings
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.replay.files import load
from samplewise.proxy.replay.live import Recorder, _File
from tests.upstream import Answer, Rule, UpstreamProcess
from tests.wire.proxy import backend, serve

HEADER = b'{"samplewise":"samples","version":1,"source":"test"}'


def _config(upstream: UpstreamProcess, folder: Path, policy: str, more: str = "") -> str:
    return (
        f"recording: {{folder: '{folder}', routes: [r]}}\n"
        f"backends:\n{backend(upstream)}verifiers:\n  number: {{type: number}}\n"
        f"  four: {{type: regex, pattern: '4'}}\nroutes:\n"
        f"  r: {{backends: [local], answers: number, max_tokens: 50, policy: {policy}{more}}}\n"
        "  other: {backends: [local], max_tokens: 50}\n"
    )


def _problems(folder: Path) -> list[Problem]:
    return [problem for path in sorted(folder.iterdir()) for problem in load(path).problems]


async def test_requests_of_named_routes_are_written_as_replay_reads_them(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4", "it is 5", "4")
    folder = tmp_path / "recorded"
    config = _config(upstream, folder, "{type: majority_vote, samples: 3}")
    async with serve(config, tmp_path) as proxy:
        first = await proxy.chat("r", "What is 2 + 2?", samplewise={"reference": "4"})
        await proxy.chat("other")
        await proxy.chat("r", "keep this to yourself", store=False)
        second = await proxy.chat("r", "and now?")
        metrics = (await proxy.get("/metrics")).body.decode()
    problems = _problems(folder)
    assert [p.id for p in problems] == [first.said["request_id"], second.said["request_id"]]
    assert "What is 2 + 2?" in problems[0].prompt
    assert (problems[0].reference, problems[0].prompt_tokens > 0) == ("4", True)
    assert sorted(s.answer or "" for s in problems[0].samples) == ["4", "4", "5"]
    (path,) = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert set(load(path).prices()) == {"local"}
    assert "samplewise_recorded_requests_total" in metrics


async def test_samples_that_come_from_others_say_from_which(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    better = Rule(contains="not accepted", answers=(Answer(text="it is 4"),))
    await upstream.script("m", "it is 5", rules=(better,))
    folder = tmp_path / "recorded"
    config = _config(upstream, folder, "{type: revise, turns: 2}", ", verifiers: [four]")
    async with serve(config, tmp_path) as proxy:
        assert (await proxy.chat("r")).text == "it is 4"
    (problem,) = _problems(folder)
    assert [(s.source, s.parents) for s in problem.samples] == [("fresh", ()), ("revise", (0,))]


async def test_a_folder_that_goes_away_costs_no_answer(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "4")
    folder = tmp_path / "recorded"
    async with serve(_config(upstream, folder, "single"), tmp_path) as proxy:
        shutil.rmtree(folder)
        for _ in range(3):
            assert (await proxy.chat("r")).status == 200
    assert not folder.exists()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes: the next write fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _line(number: int, size: int = 40) -> bytes:
    return msgspec.json.encode({"id": str(number), "prompt": "x" * size, "samples": []})


def test_a_line_that_fits_in_part_is_taken_back(tmp_path: Path) -> None:
    settings = RecordingSettings(folder=str(tmp_path), routes=("r",))
    file = _File(settings, "r", HEADER)
    file.write(_line(0))
    with largest_file(200), pytest.raises(OSError, match="too large"):
        file.write(_line(1, 500))
    file.write(_line(2))
    file.close()
    assert [p.id for p in _problems(tmp_path)] == ["0", "2"]


def test_a_file_without_room_for_its_first_line_is_not_there(tmp_path: Path) -> None:
    settings = RecordingSettings(folder=str(tmp_path), routes=("r",))
    file = _File(settings, "r", HEADER)
    with largest_file(10), pytest.raises(OSError, match="too large"):
        file.write(_line(0))
    assert list(tmp_path.iterdir()) == []
    file.write(_line(1))
    file.close()
    assert [p.id for p in _problems(tmp_path)] == ["1"]


@given(sizes=st.lists(st.integers(1, 900), min_size=1, max_size=60), files=st.integers(1, 4))
def test_a_route_takes_no_more_of_the_disk_than_it_may(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], files: int
) -> None:
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "notes.txt").write_text("not ours")
    settings = RecordingSettings(
        folder=str(folder), routes=("r",), file_mb=1000 / 2**20, files=files
    )
    file = _File(settings, "a/b", HEADER)
    for number, size in enumerate(sizes):
        file.write(_line(number, size))
        mine = [path for path in folder.iterdir() if path.suffix == ".jsonl"]
        assert len(mine) <= files
        assert all(path.stat().st_size <= 1000 + len(HEADER) for path in mine)
    file.close()
    (folder / "notes.txt").unlink()
    kept = [int(problem.id) for problem in _problems(folder)]
    # The newest, without a gap.
    assert kept == list(range(len(sizes) - len(kept), len(sizes)))


def test_a_file_that_another_worker_has_deleted_is_begun_anew(tmp_path: Path) -> None:
    settings = RecordingSettings(folder=str(tmp_path), routes=("r",))
    file = _File(settings, "r", HEADER)
    file.write(_line(0))
    (path,) = tmp_path.iterdir()
    path.unlink()
    file.write(_line(1))
    file.close()
    assert [p.id for p in _problems(tmp_path)] == ["1"]


def test_a_folder_that_cannot_be_made_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = RecordingSettings(folder=str(tmp_path / "file" / "inside"), routes=("r",))
    with pytest.raises(ConfigError, match=r"recording\.folder: .*inside"):
        Recorder(settings, lambda route, result: None).prepare()


def test_recording_is_said_aloud_and_its_routes_must_exist(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    config = _config(upstream, tmp_path, "single")
    (said,) = [w for w in load_text(config, "t.yaml", {}).warnings if w.startswith("recording")]
    assert "prompts and answers of r are written to files" in said
    with pytest.raises(ConfigError, match=r"recording\.routes\[0\]: no route 'rr'"):
        load_text(config.replace("routes: [r]", "routes: [rr]"), "t.yaml", {})
