"""One YAML file to frozen, checked settings; names and needs are checked across sections.

Reads the file and the environment, nothing else: no network, no file is made. The operator's own
Python policies are imported, because their needs are checked too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PrivateAttr, ValidationError

from samplewise.policies.price import shown_usd
from samplewise.proxy.checks_base import make_check
from samplewise.proxy.config_backends import BackendSettings, literal_secrets
from samplewise.proxy.config_budgets import GlobalBudgetSettings, TagSettings
from samplewise.proxy.config_explain import explain
from samplewise.proxy.config_keys import Keys, KeysSettings, check_keys
from samplewise.proxy.config_mirror import mirror_problem
from samplewise.proxy.config_models import (
    asked_backends,
    model_problems,
    model_warnings,
)
from samplewise.proxy.config_policy_checks import PolicyChecks
from samplewise.proxy.config_recording import RecordingSettings, recording_problems
from samplewise.proxy.config_records import RecordsSettings
from samplewise.proxy.config_routes import RouteSettings
from samplewise.proxy.config_server import ServerSettings, is_loopback
from samplewise.proxy.config_store import check_store, is_postgres
from samplewise.proxy.config_types import Name, Settings
from samplewise.proxy.config_verifiers import VerifierSettings
from samplewise.proxy.config_yaml import Document, Path, Problem, near, quoted, read
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.keys.base import Given
from samplewise.verifiers.base import Comparator, VerifierSetupError

__all__ = [
    "Config",
    "check_exposed",
    "checked",
    "load_config",
    "load_text",
]

_LARGEST_FILE = 1_000_000


def check_exposed(config: Config) -> None:
    """Refuse a server that anybody can reach and spend at.

    Raises:
        ConfigError: keys are not required on an address that other machines can reach.
    """
    host = config.server.host
    if not config.keys_required and not is_loopback(host):
        raise ConfigError(
            f"keys.required: is false, and other machines can reach {host}: anybody could spend "
            "up to the limits. Set keys.required to true and make keys with `samplewise keys "
            "create`, or list them under keys, or listen on 127.0.0.1"
        )


class Config(Settings):
    """All settings of one server."""

    server: ServerSettings = ServerSettings()
    keys: Keys = KeysSettings()
    store: Annotated[str, AfterValidator(check_store)] = "sqlite:///samplewise.db"
    store_failure: Literal["refuse", "serve_unmetered"] = "refuse"
    store_chunk_usd: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    budget: GlobalBudgetSettings = GlobalBudgetSettings()
    records: RecordsSettings = RecordsSettings()
    recording: RecordingSettings | None = None
    backends: Mapping[Name, BackendSettings] = Field(default_factory=dict)
    verifiers: Mapping[Name, VerifierSettings] = Field(default_factory=dict)
    routes: Mapping[Name, RouteSettings] = Field(default_factory=dict)
    tags: Mapping[Name, TagSettings] = Field(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @property
    def keys_required(self) -> bool:
        """Whether every request needs a client key."""
        if self.keys.required is None:
            return bool(self.keys.entries) or not is_loopback(self.server.host)
        return self.keys.required

    def given_keys(self) -> Given:
        """Return what the guard is to know: the keys of this file, and whether one is needed."""
        admin = self.server.admin_key
        return Given(
            required=self.keys_required,
            keys=tuple((k.name, k.key.get_secret_value(), k.terms()) for k in self.keys.entries),
            admin=None if admin is None else admin.get_secret_value(),
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed but probably not meant, one sentence each."""
        return self._warnings


def load_config(path: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> Config:
    """Read a configuration file.

    Raises:
        ConfigError: it cannot be read or is wrong; all its problems, one per line.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            # One byte more than is allowed, so that the size check sees a file that is too large.
            text = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{name}: cannot be read: {reason}") from None
    return load_text(text, name, env)


def load_text(text: str | bytes, name: str, env: Mapping[str, str] | None = None) -> Config:
    """Read a configuration text; `name` stands for the file in messages.

    Raises:
        ConfigError: it is wrong; all its problems, one per line.
    """
    return checked(read(text, name, os.environ if env is None else env))


def checked(document: Document) -> Config:
    """Return the settings of a document; raises ConfigError with all its problems."""
    document.problems.extend(literal_secrets(document, document.data, ()))
    config = _settings(document)
    checks = _Checks(document, config)
    checks.run()
    if document.problems:
        raise document.error()
    # A limit of all routes is found wanting once per route.
    config._warnings = tuple(map(document.sentence, dict.fromkeys(checks.warnings)))
    return config


def _settings(document: Document) -> Config:
    """Return what of a document is right; problems of the rest go into the document."""
    data = document.data
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        document.problems.extend(explain(error, Config, document))
        wrong = {fault["loc"][:2] for fault in error.errors(include_url=False)}
    # The sound entries are checked further, so that all problems are told at once.
    sections, sound = {loc[0] for loc in wrong}, {}
    for section, value in data.items():
        if section in ("backends", "verifiers", "routes") and isinstance(value, dict):
            sound[section] = {n: v for n, v in value.items() if (section, n) not in wrong}
        elif section not in sections:
            sound[section] = value
    return Config.model_validate(sound)


@dataclass(slots=True)
class _Checks:
    """The checks that need more than one section. Problems go into the document."""

    document: Document
    config: Config
    used: set[Path] = field(default_factory=set)
    comparators: set[str] = field(default_factory=set)
    warnings: list[Problem] = field(default_factory=list)

    def run(self) -> None:
        """Check all routes, then what no route uses."""
        for section in ("backends", "routes"):
            if self.document.data.get(section, {}) == {}:
                self._problem((section,), "needs at least one entry")
        self._verifiers()
        self._keys()
        self._backends()
        self._store()
        wrong, said = recording_problems(self.config.recording, self._known("routes"))
        self.document.problems += wrong
        self.warnings += said
        for name, route in self.config.routes.items():
            path = ("routes", name)
            self._names(route, path)
            # After a value that could not be read, what is missing is not what was meant.
            if not any(broken[:2] == path for broken in self.document.broken):
                found = PolicyChecks(self.config, self.comparators)
                found.run(route, path)
                self.document.problems += found.problems
                self.warnings += found.warnings
                self._room(route, path)
        self._unread_routes()
        for section in ("backends", "verifiers"):
            for name in self._known(section):
                if (section, name) not in self.used:
                    self._warn((section, name), "no route uses it")

    def _unread_routes(self) -> None:
        # One wrong value must not hide the wrong names beside it until the next run.
        routes = self.document.data.get("routes")
        told = {problem.path[:3] for problem in self.document.problems}
        for name, raw in routes.items() if isinstance(routes, dict) else ():
            if name in self.config.routes or not isinstance(raw, dict):
                continue
            for field_ in ("backends", "verifiers", "tags", "answers", "comparator"):
                path = ("routes", name, field_)
                if field_ in raw and path not in told:
                    self._unread_names(raw[field_], path)

    def _unread_names(self, given: object, path: Path) -> None:
        section = path[-1] if path[-1] in ("backends", "tags") else "verifiers"
        places = enumerate(given) if isinstance(given, list) else [((), given)]
        for place, name in places:
            if isinstance(name, str):
                self._name(name, str(section), (*path, place) if isinstance(place, int) else path)

    def _keys(self) -> None:
        admin = self.config.server.admin_key
        found = check_keys(self.document, self.config.keys, admin, self._known("routes"))
        for problem, wrong in found:
            (self.document.problems if wrong else self.warnings).append(problem)

    def _backends(self) -> None:
        for name, backend in self.config.backends.items():
            if backend.price is not None and backend.price.dearer:
                fields = ", ".join(backend.price.dearer[:8])
                wrong = f"the table also has what costs more and is not counted: {fields}"
                self._warn(("backends", name, "price"), wrong)

    def _store(self) -> None:
        if self.config.store_chunk_usd is not None and not is_postgres(self.config.store):
            wrong = "only a PostgreSQL store has chunks: leave it out"
            self._problem(("store_chunk_usd",), wrong)
        if self.config.store_failure == "refuse":
            return
        wrong = (
            "while the ledger cannot be reached, requests are answered and count in no limit of a "
            "key, route, backend, tag or window"
        )
        everywhere = self.config.budget.per_request().nano
        bare = [
            name
            for name, route in self.config.routes.items()
            if route.budget.per_request().nano is None and everywhere is None
        ]
        if bare:
            wrong += f"; no usd_per_request bounds one of {', '.join(bare)} either"
        self._warn(("store_failure",), wrong)

    def _names(self, route: RouteSettings, path: Path) -> None:
        if route.side_requests is not None and (side := route.side_requests.backend) is not None:
            self._name(side, "backends", (*path, "side_requests", "backend"))
        if route.mirror is not None:
            wrong = mirror_problem(str(path[-1]), route.mirror, self.config.routes)
            if wrong is not None:
                self._problem((*path, "mirror", "route"), wrong)
        for section in ("backends", "verifiers", "tags"):
            for index, name in enumerate(getattr(route, section)):
                self._name(name, section, (*path, section, index))
        for field_ in ("answers", "comparator"):
            name = getattr(route, field_)
            if name is not None:
                self._name(name, "verifiers", (*path, field_))

    def _verifiers(self) -> None:
        # Building one starts nothing, and finds a wrong pattern, schema or formula now.
        for name, settings in self.config.verifiers.items():
            try:
                check = make_check(name, settings)
                self.comparators |= {name} if isinstance(check.verifier, Comparator) else set()
            except VerifierSetupError as error:
                self._problem(("verifiers", name), str(error).removeprefix(f"{name}: "))
        verifiers, backends = self.config.verifiers, self.config.backends
        self.used |= {("backends", name) for name in asked_backends(verifiers)}
        self.document.problems += model_problems(verifiers, backends, self._known("backends"))
        self.warnings += model_warnings(verifiers, backends)

    def _name(self, name: str, section: str, path: Path) -> None:
        self.used.add((section, name))
        known = self._known(section)
        if name not in known:
            kind = section.removesuffix("s")
            self._problem(path, f"no {kind} {quoted(name)}{near(name, known)}")

    def _room(self, route: RouteSettings, path: Path) -> None:
        """Warn of limits that leave no room: no sample fits."""
        for budget, where in ((route.budget, path), (self.config.budget, ())):
            if budget.tokens is not None and budget.tokens < route.max_tokens:
                wrong = f"{budget.tokens} is less than max_tokens {route.max_tokens}"
                self._warn((*where, "budget", "tokens"), f"{wrong}: no request fits")
            limits = [limit.nano for limit in budget.per_window().values()]
            limits.append(budget.per_request().nano)
            least = min((nano for nano in limits if nano is not None), default=None)
            worst = self._cheapest(route)
            if least is not None and worst is not None and worst > least:
                wrong = f"one sample of {route.max_tokens} tokens may cost {shown_usd(worst)}"
                self._warn((*where, "budget"), f"{wrong}, more than {shown_usd(least)}: none fits")

    def _cheapest(self, route: RouteSettings) -> int | None:
        backends = [self.config.backends.get(name) for name in route.backends]
        prices = [backend.price.build() for backend in backends if backend and backend.price]
        worst = [price.worst_nano(0, route.max_tokens) for price in prices]
        return min(worst) if worst and len(worst) == len(backends) else None

    def _known(self, section: str) -> list[str]:
        entries = self.document.data.get(section)
        return list(entries) if isinstance(entries, dict) else []

    def _problem(self, path: Path, message: str) -> None:
        self.document.problems.append(Problem(path, message))

    def _warn(self, path: Path, message: str) -> None:
        self.warnings.append(Problem(path, message))
