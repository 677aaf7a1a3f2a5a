"""A request as verifiers and policies see it: its task and seed, and whether anything can pass."""

from __future__ import annotations

from samplewise.policies.base import Policy
from samplewise.proxy.job import Route
from samplewise.proxy.wire import ChatRequest
from samplewise.verifiers.base import Task

__all__ = ["seed_of", "task_of", "unchecked"]


def seed_of(request: ChatRequest, route: Route, request_id: str) -> int:
    """Return where all chance of a request comes from."""
    for seed in (request.seed, route.seed):
        if seed is not None:
            return seed
    # Request ids are random already, and random numbers of the system take their time.
    return int(request_id[-8:], 16)


def task_of(request: ChatRequest, request_id: str, route: str, seed: int) -> Task:
    """Return what was asked."""
    options = request.options
    tests = bytes(options.tests)
    return Task(
        request_id=request_id,
        route=route,
        messages=request.messages,
        tools=request.tools,
        response_format=request.response_format,
        reference=options.reference,
        tests=None if tests == b"null" else tests,
        item=options.item or {},
        seed=seed,
    )


def unchecked(
    request: ChatRequest, route: Route, policy: Policy, task: Task
) -> tuple[str, bool] | None:
    """Say why no sample of a request can pass, where the policy waits for one that does.

    The second is whether one sample is enough: nothing judges the others either, and the client
    asked for no more answers and no policy of its own. None where a sample can pass.
    """
    if not policy.needs.verdicts or route.voter is not None:
        return None
    mute = [c for c in route.automatic if c.selective and not c.selective.judges(task)]
    required = [check.name for check in mute if check.required]
    if not required:
        return None
    alone = len(mute) == len(route.automatic)
    own = request.n > 1 or request.options.policy is not None
    why = (
        f"{', '.join(required)}: nothing to check by in this request (tests, a reference or a"
        " schema), so no sample can pass"
    )
    return (f"{why}; one was drawn", True) if alone and not own else (why, False)
