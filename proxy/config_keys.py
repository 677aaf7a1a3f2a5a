"""`keys:` whether clients need a key, and the keys that stand in the file itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from samplewise.proxy.config_budgets import BudgetSettings
from samplewise.proxy.config_types import Count, Many, Name, Secret, Settings
from samplewise.proxy.config_yaml import Document, Path, Problem, near, quoted
from samplewise.proxy.keys.base import CONFIGURED, KeyRefused, Terms, check_terms
from samplewise.proxy.keys.text import parse_time
from samplewise.proxy.ledger.accounts import utc_ms
from samplewise.proxy.ledger.base import Window

__all__ = ["AccessKey", "KeyBudgetSettings", "KeySettings", "Keys", "check_keys"]

_SHORTEST = 16


def _access_key(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) < _SHORTEST or " " in text:
        raise ValueError(f"must have at least {_SHORTEST} characters, and no spaces")
    return value


def _name(value: str) -> str:
    try:
        check_terms(value, Terms())
    except KeyRefused as error:
        raise ValueError(_rule(error)) from None
    return value


def _rule(error: KeyRefused) -> str:
    """Return what must be, without the value that is wrong: it may be a secret out of place."""
    return str(error).rpartition(": ")[2]


def _tag(value: str) -> str:
    try:
        check_terms("a", Terms(tags=(value,)))
    except KeyRefused as error:
        raise ValueError(_rule(error)) from None
    return value


def _time(value: str) -> str:
    if parse_time(value) is None:
        raise ValueError("must be a date or time such as 2027-01-31 or 2027-01-31T12:00Z")
    return value


AccessKey = Annotated[Secret, AfterValidator(_access_key)]


class KeyBudgetSettings(BudgetSettings):
    """What a key may spend per window, and how many requests it may send."""

    requests_per_minute: Count | None = None
    requests_per_hour: Count | None = None
    requests_per_day: Count | None = None
    requests_per_month: Count | None = None
    requests_total: Count | None = None

    def rates(self) -> tuple[tuple[Window, int], ...]:
        """Return the most requests by the window they count in."""
        found = {
            window: getattr(
                self,
                "requests_total" if window is Window.TOTAL else f"requests_per_{window.value}",
            )
            for window in Window
        }
        return tuple((window, most) for window, most in found.items() if most is not None)


class KeySettings(Settings):
    """A client key in the file. Its account goes by its name, so what it has spent stays."""

    name: Annotated[str, AfterValidator(_name)]
    key: Annotated[AccessKey, Field(description='write "${NAME}" and set the variable NAME')]
    routes: Many[Name] = ()
    budget: KeyBudgetSettings = KeyBudgetSettings()
    max_samples: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    expires: Annotated[str, AfterValidator(_time)] | None = None
    tests: bool = False
    tags: Many[Annotated[str, AfterValidator(_tag)]] = ()

    @property
    def id(self) -> str:
        """What rows and accounts of the ledger call it."""
        return f"{CONFIGURED}{self.name}"

    def terms(self) -> Terms:
        """Return what its holder may do."""
        return Terms(
            routes=self.routes,
            limits=tuple(self.budget.per_window().items()),
            requests=self.budget.rates(),
            max_samples=self.max_samples,
            expires_at=None if self.expires is None else parse_time(self.expires),
            tests=self.tests,
            tags=self.tags,
        )


class KeysSettings(Settings):
    """Whether clients need a key, and keys of the file's own. A plain list is `list`, required."""

    required: bool | None = None
    entries: Annotated[Many[KeySettings], Field(alias="list")] = ()


def _mapping(value: Any) -> Any:
    return {"required": True, "list": value} if isinstance(value, list) else value


Keys = Annotated[KeysSettings, BeforeValidator(_mapping)]


def check_keys(
    document: Document, keys: KeysSettings, admin: SecretStr | None, routes: list[str]
) -> Iterator[tuple[Problem, bool]]:
    """Check keys against each other and the routes; yield problems, and whether each is an error.

    Whatever is told, no secret is part of it.
    """
    base: Path = ("keys",) if isinstance(document.at(("keys",)), list) else ("keys", "list")
    names: dict[str, int] = {}
    secrets: dict[str, str] = {}
    if admin is not None:
        secrets[admin.get_secret_value()] = "server.admin_key"
    for index, key in enumerate(keys.entries):
        here = (*base, index)
        if key.name in names:
            wrong = f"is the name of entry {names[key.name]} too: each needs one of its own"
            yield Problem((*here, "name"), wrong), True
        names.setdefault(key.name, index)
        secret = key.key.get_secret_value()
        if secret in secrets:
            wrong = f"is the same as {secrets[secret]}: each needs a secret of its own"
            yield Problem((*here, "key"), wrong), True
        secrets.setdefault(secret, f"that of entry {index}")
        for number, route in enumerate(key.routes):
            if route not in routes:
                wrong = f"no route {quoted(route)}{near(route, routes)}"
                yield Problem((*here, "routes", number), wrong), True
        expires = key.terms().expires_at
        if expires is not None and expires <= utc_ms():
            yield Problem((*here, "expires"), "is in the past: nobody can use this key"), False
