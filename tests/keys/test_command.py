"""`samplewise keys`, and what `samplewise serve` says of keys when it starts."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from samplewise.proxy.cli import main
from samplewise.proxy.config_server import is_loopback
from samplewise.proxy.keys.base import Terms
from samplewise.proxy.keys.store import KeyStore, key_store
from samplewise.proxy.ledger.places import SqlitePlace
from tests.cli.served import config, run, serving
from tests.upstream import Answer, UpstreamProcess
from tests.wire.books import store_url

ROUTES = "  vote: {backends: [local]}\n"
NOWHERE = "http://127.0.0.1:9/v1"


def _keys(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["keys", *arguments])


def _secret(result: Result) -> str:
    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"sk-sw-[A-Za-z0-9_-]{43}\n", result.stdout)
    return result.stdout.strip()


def test_create_shows_the_secret_once_and_list_never(tmp_path: Path) -> None:
    file = config(tmp_path, NOWHERE, ROUTES)
    limits = ["--limit", "usd_per_day=5", "--limit", "tokens_total=100", "--tag", "team:x"]
    rest = ["--limit", "requests_per_minute=60", "--max-samples", "4", "--expires", "90d"]
    made = _keys("create", "ci", "--config", file, "--route", "vote", *limits, *rest)
    secret = _secret(made)
    assert made.stderr.count("shown this once") == 1
    assert secret not in made.stderr
    for form in ([], ["--json"]):
        shown = _keys("list", "--config", file, *form)
        assert shown.exit_code == 0
        assert secret not in shown.output
        assert "usd_per_day" in shown.output
    line = msgspec.json.decode(shown.stdout)
    assert line["limits"] == {"usd_per_day": 5, "tokens_total": 100, "requests_per_minute": 60}
    assert (line["name"], line["state"], line["routes"]) == ("ci", "active", ["vote"])
    assert (line["max_samples"], line["tags"], line["source"]) == (4, ["team:x"], "store")
    found = b"".join(part.read_bytes() for part in tmp_path.iterdir())
    assert secret[6:].encode() not in found


def test_rotate_shows_another_secret_and_revoke_ends_the_key(where: Path | str) -> None:
    store = store_url(where)
    first = _secret(_keys("create", "ci", "--store", store))
    assert _secret(_keys("rotate", "ci", "--store", store)) != first
    revoked = _keys("revoke", "ci", "--store", store)
    assert (revoked.exit_code, revoked.stdout) == (0, "")
    assert "is revoked" in revoked.stderr
    assert '"state":"revoked"' in _keys("list", "--json", "--store", store).stdout
    again = _keys("revoke", "ci", "--store", store)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "there is no key 'ci' that is not revoked" in again.stderr


def test_update_changes_what_is_named_and_nothing_else(tmp_path: Path) -> None:
    file = config(tmp_path, NOWHERE, ROUTES)
    limits = ["--limit", "usd_per_day=5", "--limit", "samples_per_day=9", "--tag", "x"]
    made = _keys("create", "ci", "--config", file, *limits, "--route", "vote", "--expires", "90d")
    _secret(made)
    rates = ["--limit", "samples_per_day=none", "--limit", "requests_per_hour=7"]
    done = _keys("update", "ci", "--config", file, *rates, "--max-samples", "3", "--allow-tests")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "is changed" in done.stderr
    key = msgspec.json.decode(_keys("list", "--json", "--config", file).stdout)
    assert key["limits"] == {"usd_per_day": 5, "requests_per_hour": 7}
    assert (key["routes"], key["tags"], key["max_samples"]) == (["vote"], ["x"], 3)
    assert (key["tests"], key["expires_at"] is None) == (True, False)
    rest = ["--max-samples", "none", "--expires", "never", "--forbid-tests"]
    done = _keys("update", "ci", "--config", file, "--all-routes", "--no-tags", *rest)
    assert done.exit_code == 0
    key = msgspec.json.decode(_keys("list", "--json", "--config", file).stdout)
    assert (key["routes"], key["tags"], key["max_samples"]) == ([], [], None)
    assert (key["tests"], key["expires_at"]) == (False, None)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ((), 2, "say what to change, such as --limit usd_per_day=5"),
        (("--route", "vote", "--all-routes"), 2, "give --route or --all-routes"),
        (("--max-samples", "-1"), 1, "max-samples: must be a whole number or none, got '-1'"),
        (("--limit", "usd_per_day=-1"), 1, "limit usd_per_day: must be greater than 0"),
        (("--expires", "2020-01-01"), 1, "expires: is in the past"),
    ],
)
def test_updates_that_cannot_be_change_nothing(
    tmp_path: Path, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    file = config(tmp_path, NOWHERE, ROUTES)
    _secret(_keys("create", "ci", "--config", file))
    before = KeyStore(SqlitePlace(tmp_path / "ledger.db")).load()
    done = _keys("update", "ci", "--config", file, *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert reason in done.stderr
    assert KeyStore(SqlitePlace(tmp_path / "ledger.db")).load() == before


def test_rotate_with_overlap_says_how_long_the_old_secret_is_good(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/ledger.db"
    _secret(_keys("create", "ci", "--store", store))
    rotated = _keys("rotate", "ci", "--store", store, "--overlap", "1h")
    _secret(rotated)
    assert "the old secret is good until 20" in rotated.stderr
    for wrong in ("soon", "31d", "-1h"):
        refused = _keys("rotate", "ci", "--store", store, "--overlap", wrong)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "overlap: must be a time up to 30d, such as 1h" in refused.stderr


def test_keys_of_the_configuration_are_listed_and_changed_there_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_KEY", "the-key-of-ci-in-the-file")
    extra = 'keys: [{name: ci, key: "${CI_KEY}", budget: {usd_per_day: 5}}]\n'
    file = config(tmp_path, NOWHERE, ROUTES, extra=extra)
    _secret(_keys("create", "made", "--config", file))
    for form in ([], ["--json"]):
        listed = _keys("list", "--config", file, *form)
        assert "the-key-of-ci" not in listed.output
        assert "config:ci" in listed.output
        assert "made" in listed.output
    for action in ("create", "revoke", "rotate"):
        refused = _keys(action, "ci", "--config", file)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "stands in the configuration: change it there" in refused.stderr
    refused = _keys("update", "config:ci", "--config", file, "--max-samples", "1")
    assert "stands in the configuration" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--limit", "usd_per_day=-5"), "limit usd_per_day: must be greater than 0"),
        (("--limit", "usd_per_week=5"), "limit 'usd_per_week': there is no such limit"),
        (("--route", "vot"), "route: there is no route 'vot'; did you mean 'vote'?"),
        (("--expires", "2020-01-01"), "expires: is in the past"),
        (("--expires", "soon"), "expires: must be a date, a time or a duration such as 90d"),
        (("--max-samples", "0"), "max-samples: must be 1 to 1000000, got 0"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(
    tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    file = config(tmp_path, NOWHERE, ROUTES)
    made = _keys("create", "ci", "--config", file, *arguments)
    assert (made.exit_code, made.stdout) == (1, "")
    assert made.stderr.startswith(f"samplewise: {reason}")
    path = tmp_path / "ledger.db"
    assert not path.exists() or KeyStore(SqlitePlace(path)).load().keys == ()


@pytest.mark.parametrize("action", [("list",), ("revoke", "a"), ("rotate", "a")])
def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, action: tuple[str, ...]) -> None:
    result = _keys(*action, "--store", f"sqlite:///{tmp_path}/none.db")
    assert result.exit_code == 1
    assert "There is no ledger" in result.stderr
    assert list(tmp_path.iterdir()) == []
    empty = tmp_path / "empty.db"
    empty.touch()
    result = _keys(*action, "--store", f"sqlite:///{empty}")
    assert result.exit_code == 1
    assert "is empty, not a Samplewise ledger" in result.stderr
    assert empty.stat().st_size == 0


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside


@pytest.mark.parametrize("given", [("--host", "0.0.0.0"), ("--host", "::")])
def test_a_server_that_others_reach_does_not_start_without_keys(
    tmp_path: Path, given: tuple[str, ...]
) -> None:
    file = config(tmp_path, NOWHERE, ROUTES, extra="keys: {required: false}\n")
    result = CliRunner().invoke(main, ["serve", "--config", file, *given])
    assert result.exit_code == 1
    assert result.stderr.startswith("samplewise: keys.required: is false, and other machines can")
    assert not (tmp_path / "ledger.db").exists()


def test_check_says_so_too(tmp_path: Path) -> None:
    extra = "keys: {required: false}\n"
    file = config(tmp_path, NOWHERE, ROUTES, ", host: 0.0.0.0", extra=extra)
    result = CliRunner().invoke(main, ["check", file])
    assert result.exit_code == 1
    assert "keys.required: is false" in result.stderr


async def test_a_server_that_others_reach_needs_keys_without_being_told(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str
) -> None:
    await upstream.script("m", Answer(text="hi"))
    file = config(tmp_path, upstream.base_url, ROUTES, ", host: 0.0.0.0", store=where)
    async with serving(tmp_path, "--config", file) as served:
        served.url = served.url.replace("0.0.0.0", "127.0.0.1")
        assert any("no client keys" in line for line in served.said)
        assert (await served.chat("vote")).status == 401


async def test_a_key_revoked_by_the_command_ends_at_every_worker(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str
) -> None:
    await upstream.script("m", Answer(text="hi"))
    server, extra = ", log_level: error", "keys: {required: true}\n"
    file = config(tmp_path, upstream.base_url, ROUTES, server, extra=extra, store=where)
    made = await run(tmp_path, "keys", "create", "ci", "--config", file)
    body = b'{"model": "vote", "messages": [{"role": "user", "content": "hi"}]}'
    headers = {"authorization": f"Bearer {made.out.strip()}"}
    async with serving(tmp_path, "--config", file, "--workers", "2") as served:
        assert {(await served.post(body, **headers)).status for _ in range(8)} == {200}
        assert (await run(tmp_path, "keys", "revoke", "ci", "--config", file)).code == 0
        seen: list[int] = []
        async with asyncio.timeout(3):
            while seen[-20:] != [401] * 20:
                seen.append((await served.post(body, **headers)).status)


async def test_spend_names_the_key_that_spent(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str
) -> None:
    await upstream.script("m", Answer(text="yes"))
    file = config(tmp_path, upstream.base_url, ROUTES, store=where)
    with closing(key_store(store_url(where))) as store:
        key, secret = store.create("ci", Terms())
    async with serving(tmp_path, "--config", file) as served:
        body = b'{"model":"vote","messages":[{"role":"user","content":"hi"}]}'
        await served.post(body, authorization=f"Bearer {secret}")
        await served.post(body)
    shown = await run(tmp_path, "spend", "--config", file, "--by", "key", "--csv")
    groups = [line.partition(",")[0] for line in shown.out.splitlines()[1:]]
    assert groups == ["", f"ci ({key.id})"]


def test_the_command_is_in_the_list() -> None:
    assert "rotate and revoke the keys" in CliRunner().invoke(main, ["--help"]).output


def test_create_says_when_it_makes_a_ledger(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/typo.db"
    for name, warned in (("a", True), ("b", False)):
        made = _keys("create", name, "--store", store)
        _secret(made)
        assert ("there was no ledger" in made.stderr and "typo.db" in made.stderr) == warned
