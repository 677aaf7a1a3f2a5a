"""Checks of a route's policies: what each needs of backends, verifiers, prompts and limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from samplewise.policies.base import Needs, PolicyError
from samplewise.proxy.config_backends import BackendSettings
from samplewise.proxy.config_budgets import GlobalBudgetSettings
from samplewise.proxy.config_models import never_passing, route_problems
from samplewise.proxy.config_policies import (
    AdaptiveVoteSettings,
    FirstPassSettings,
    PolicySettings,
    is_policy_type,
)
from samplewise.proxy.config_routes import RouteSettings, raw_warning
from samplewise.proxy.config_verifiers import VerifierSettings
from samplewise.proxy.config_yaml import Path, Problem, near, quoted

__all__ = ["PolicyChecks"]


class _Config(Protocol):
    @property
    def backends(self) -> Mapping[str, BackendSettings]: ...
    @property
    def verifiers(self) -> Mapping[str, VerifierSettings]: ...
    @property
    def budget(self) -> GlobalBudgetSettings: ...


def _policy_problem(error: PolicyError, path: Path) -> Problem:
    """Return the problem at the field that a policy's own message begins with."""
    field, _, rest = str(error).partition(": ")
    parts = tuple(int(part) if part.isdigit() else part for part in field.split("."))
    return Problem((*path, *parts), rest) if rest else Problem(path, field)


@dataclass(slots=True)
class PolicyChecks:
    """The checks of one route's policies. `comparators` are the verifiers that compare samples."""

    config: _Config
    comparators: Collection[str]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def run(self, route: RouteSettings, path: Path) -> None:
        """Check the route's own policy, each that a request may choose, and what serves all."""
        found = [self._policy(route, route.policy, path, "")]
        for name, policy in route.policies.items():
            if is_policy_type(name) and policy.type != name:
                wrong = f"{name} is a policy of another type than {policy.type}: choose a new name"
                self._problem((*path, "policies", name), wrong)
            found.append(self._policy(route, policy, path, name))
        if found[0] is not None:
            said = raw_warning(route, found[0], self.config.backends)
            self.warnings += [] if said is None else [Problem((*path, "stream"), said)]
        self._judges(route, path)
        if None not in found:
            self._steps(route, [needs for needs in found if needs is not None], path)

    def _policy(
        self, route: RouteSettings, policy: PolicySettings, path: Path, name: str
    ) -> Needs | None:
        """Check one policy and return what it needs; `name` is empty for the route's own."""
        here = (*path, "policies", name) if name else (*path, "policy")
        try:
            needs = policy.build().needs
        except PolicyError as error:
            self.problems.append(_policy_problem(error, here))
            return None
        if needs.answers and route.answers is None:
            said = "no `answers` is set: the final answer found in each text votes"
            self.warnings.append(Problem(here, said))
        if isinstance(policy, AdaptiveVoteSettings) and policy.out_of_reach:
            said = f"{policy.margin} is above max_samples {policy.max_samples}: never reached"
            self.warnings.append(Problem((*here, "margin"), said))
        self._named(route, needs, here)
        self._limits(policy.type, route, needs, path, here)
        self._judged(policy.type, route, needs, here)
        for field_, wrong in self._outcome(policy, route, needs):
            # A field of the route suits all its policies but this one.
            place = (here, f"{field_}: {wrong}") if name else ((*path, field_), wrong)
            self._problem(*place)
        return needs

    def _named(self, route: RouteSettings, needs: Needs, here: Path) -> None:
        judges = {*route.verifiers, *filter(None, [route.answers])}
        for name in needs.scores:
            if name not in judges:
                wrong = f"the route has no verifier {quoted(name)}{near(name, judges)}"
                self._problem((*here, "score"), wrong)
        for name in needs.backends:
            if name not in route.backends:
                wrong = f"the route has no backend {quoted(name)}{near(name, route.backends)}"
                self._problem(here, wrong)
        for name in needs.variants:
            if name not in route.prompts:
                known = list(route.prompts)
                wrong = f"the route has no prompt {quoted(name)} under `prompts`{near(name, known)}"
                self._problem(here, wrong)

    def _limits(
        self, kind: str, route: RouteSettings, needs: Needs, path: Path, here: Path
    ) -> None:
        if needs.min_ok > needs.max_samples:
            wrong = f"must not exceed the {needs.max_samples} samples, got {needs.min_ok}"
            self._problem((*here, "min_ok"), wrong)
        for budget, where in ((route.budget, path), (self.config.budget, ())):
            if budget.samples is not None and needs.max_samples > budget.samples:
                shown = ".".join(map(str, (*where, "budget", "samples")))
                wrong = f"{kind} may draw {needs.max_samples} samples, but {shown} is"
                self._problem(here, f"{wrong} {budget.samples}: lower one or raise the other")

    def _judged(self, kind: str, route: RouteSettings, needs: Needs, here: Path) -> None:
        if needs.verdicts and not route.verifiers:
            self._problem(here, f"{kind} needs a verifier: name one under `verifiers`")
        if needs.prior and route.prior is None:
            wrong = "weighs right against wrong answers: set `prior` to a file of `samplewise "
            self._problem(here, f"{kind} {wrong}calibrate`")
        if needs.comparator and route.comparator is None:
            wrong = f"{kind} compares samples: set `comparator` to a verifier's name"
            self._problem(here, wrong)

    def _outcome(
        self, policy: PolicySettings, route: RouteSettings, needs: Needs
    ) -> list[tuple[str, str]]:
        """Return fields of the route that do not suit a policy, and why."""
        found = []
        if isinstance(policy, FirstPassSettings):
            unfit = never_passing(route, self.config.verifiers)
            found += [("verifiers", wrong) for wrong in unfit]
        if route.on_tools == "vote" and not needs.answers:
            found.append(("on_tools", f"vote needs a policy that votes: {policy.type} does not"))
        if route.on_unverified == "vote" and route.answers is None and not needs.answers:
            found.append(("on_unverified", "vote needs `answers`, whose answers vote"))
        return found

    def _judges(self, route: RouteSettings, path: Path) -> None:
        """Check what verifiers of a route can do for it, whatever its policy."""
        verifiers = self.config.verifiers
        self.problems += route_problems(route, verifiers, path)
        if route.comparator in verifiers and route.comparator not in self.comparators:
            wrong = "cannot compare samples: it must be pairwise, or python with `compare`"
            self._problem((*path, "comparator"), wrong)
        found = [verifiers.get(name) for name in route.verifiers]
        if route.on_unverified == "error" and not any(v is None or v.required for v in found):
            wrong = "error needs a required verifier: without one nothing is ever verified"
            self._problem((*path, "on_unverified"), wrong)
        voter = verifiers.get(route.answers or "")
        if voter is not None and voter.scope == "step":
            self._problem((*path, "answers"), "must judge whole answers: its scope is step")

    def _steps(self, route: RouteSettings, policies: list[Needs], path: Path) -> None:
        found = [self.config.verifiers.get(name) for name in route.verifiers]
        drawn = any(needs.continuation or needs.step_scores for needs in policies)
        if not drawn and any(v is not None and v.scope == "step" for v in found):
            one = f"{route.policy.type} does not draw"
            who = "no policy of the route draws" if route.policies else one
            self._problem((*path, "verifiers"), f"one of them judges steps, which {who}")

    def _problem(self, path: Path, message: str) -> None:
        self.problems.append(Problem(path, message))
